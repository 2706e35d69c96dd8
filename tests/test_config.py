"""Configuration: what is accepted, what is refused with which sentence, and that no secret ever shows."""

import os
import re
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kafka_helpers as kh

SECRET = "cfltK9x+Zq/7wPm2vT8rYb4LsN6aJd0HeXuG3oQiW1kRfBgMzCnV5tSyDpEjUlOh"
CONSOLE = f"""# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-abc12.us-east-2.aws.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.mechanisms=PLAIN
sasl.username=ABCDEFGH12345678
sasl.password={SECRET}

# Best practice for higher availability in librdkafka clients prior to 1.7
session.timeout.ms=45000

client.id=ccloud-python-client-1f2e
"""
COURSE = f"""BOOTSTRAP_SERVERS=pkc-abc12.us-east-2.aws.confluent.cloud:9092
SECURITY_PROTOCOL=SASL_SSL
SASL_MECHANISMS=PLAIN
SASL_USERNAME=ABCDEFGH12345678
SASL_PASSWORD={SECRET}
"""
EXPECTED = {
    "bootstrap.servers": "pkc-abc12.us-east-2.aws.confluent.cloud:9092",
    "security.protocol": "SASL_SSL",
    "sasl.mechanisms": "PLAIN",
    "sasl.username": "ABCDEFGH12345678",
    "sasl.password": SECRET,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in kh.ENV_KEYS:
        monkeypatch.delenv(key, raising=False)


def write(name: str, content: str | bytes) -> None:
    with open(name, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(name, 0o600)


def test_nothing_given_is_none():
    assert kh.load_config() is None


def test_console_file(capsys):
    write("client.properties", CONSOLE)
    assert kh.load_config() == EXPECTED | {"client.id": "ccloud-python-client-1f2e"}
    assert capsys.readouterr().out == "Configuration from client.properties, API key ABC....\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: re.sub(r"(?m)^(\w[^=]*)=(.*)$", r"  \1 =  \2  ", text),
        lambda text: re.sub(r"(?m)^(\w[^=]*)=(.*)$", r'\1="\2"', text),
        lambda text: text.replace("SASL_SSL", "SASL_SSL # as the console says"),
        lambda text: "[default]\n" + text + "\n[consumer]\ngroup.id=x\nauto.offset.reset=earliest\n",
        lambda text: text.replace("sasl.mechanisms", "sasl.mechanism"),
        lambda text: text + "schema.registry.url=https://x\nbasic.auth.user.info=a:b\n",
    ],
    ids=["bom", "crlf", "spaces", "quotes", "comment", "header", "singular", "registry"],
)
def test_what_can_be_accepted_is_accepted(change):
    write("client.properties", change(CONSOLE))
    assert kh.load_config() == EXPECTED | {"client.id": "ccloud-python-client-1f2e"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: re.sub(r"(?m)^(\w+)=(.*)$", r'export \1 = "\2"', text),
        lambda text: text.replace("PLAIN\n", "PLAIN  # as in the course\n"),
        lambda text: "# mine\nOTHER_PROGRAM=1\n" + text,
    ],
    ids=["plain", "bom", "crlf", "export and quotes", "comment", "others"],
)
def test_env_file(change):
    write(".env", change(COURSE))
    assert kh.load_config() == EXPECTED


def test_environment_wins_over_env_file_and_properties_over_both(monkeypatch, capsys):
    write(".env", COURSE)
    monkeypatch.setenv("SASL_USERNAME", "FROMENVIRONMENT1")
    assert kh.load_config()["sasl.username"] == "FROMENVIRONMENT1"
    assert "Configuration from .env and the environment" in capsys.readouterr().out
    write("client.properties", CONSOLE)
    assert kh.load_config()["sasl.username"] == "ABCDEFGH12345678"


REFUSED = [
    ("client.properties", CONSOLE.replace("sasl.password=", "sasl.pasword="), "line 6.*sasl.password"),
    ("client.properties", CONSOLE.replace("sasl.username=ABCDEFGH12345678\n", ""), "lacks sasl.username"),
    ("client.properties", CONSOLE.replace("=SASL_SSL", " SASL_SSL"), "line 3 is not of the form key=value"),
    ("client.properties", CONSOLE.replace("sasl.password=", ""), "line 6 is not of the form|lacks sasl.password"),
    ("client.properties", CONSOLE + "sasl.username=ANOTHERKEY123456\n", "line 12.*again.*line 5"),
    ("client.properties", CONSOLE.replace("=ABCDEFGH12345678", "="), "line 5: sasl.username has no value"),
    ("client.properties", CONSOLE.replace(SECRET, "<CLUSTER API SECRET>"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "{{ CLUSTER_API_SECRET }}"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "YOUR_PASSWORD"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace("SASL_SSL", "SASL"), "line 3: .*security.protocol"),
    ("client.properties", CONSOLE + "linger.ms=soon\n", "line 12: .*linger.ms"),
    ("client.properties", CONSOLE + "colour=blue\n", "line 12 has a key that the client doesn't know"),
    ("client.properties", "security.protocol=PLAINTEXT\n", "lacks bootstrap.servers"),
    ("client.properties", "# nothing yet\n", "holds no setting"),
    ("client.properties", CONSOLE.encode("utf-16"), "not a text file in UTF-8"),
    (".env", COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORT="), "line 5 has an unknown key .*SASL_PASSWORD"),
    (".env", COURSE.replace("SASL_USERNAME=ABCDEFGH12345678\n", ""), "lacks SASL_USERNAME"),
    (".env", COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORD "), "line 5 is not of the form KEY=value"),
    (".env", COURSE + "SASL_USERNAME=ANOTHERKEY123456\n", "line 6.*again.*line 4"),
    (".env", COURSE.replace(SECRET, ""), "line 5: SASL_PASSWORD has no value"),
    (".env", COURSE.replace("SASL_SSL", "SASL"), "line 2: .*SECURITY_PROTOCOL"),
]


@pytest.mark.parametrize(
    ("name", "content", "sentence"), REFUSED, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(REFUSED)]
)
def test_what_is_wrong_is_said_in_one_sentence(name, content, sentence):
    write(name, content)
    with pytest.raises(kh.ConfigError) as caught:
        kh.load_config()
    said = str(caught.value)
    assert re.search(sentence, said), said
    assert name in said
    assert "\n" not in said and SECRET not in said


def test_examples_are_recognised_as_such():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for example, name in (("client.properties.example", "client.properties"), (".env.example", ".env")):
        with open(os.path.join(root, example)) as file:
            write(name, file.read())
        with pytest.raises(kh.ConfigError, match="placeholder"):
            kh.load_config()
        os.remove(name)


def test_a_folder_in_place_of_the_file():
    os.mkdir("client.properties")
    with pytest.raises(kh.ConfigError, match="can't be read"):
        kh.load_config()


@pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX matter")
def test_a_file_that_others_can_read_gets_a_warning(capsys):
    write("client.properties", CONSOLE)
    os.chmod("client.properties", 0o644)
    kh.load_config()
    assert "chmod 600 client.properties" in capsys.readouterr().out


def test_an_error_shows_as_its_sentence_alone_in_a_notebook():
    assert kh.ConfigError("What to do.")._render_traceback_() == ["ConfigError: What to do."]


secrets_ = st.text(string.ascii_letters + string.digits + "+/=", min_size=16, max_size=64)


@st.composite
def damaged_files(draw):
    """A file with credentials, and a few slips of the kind that fingers and editors make."""
    secret = draw(secrets_)
    name, text = draw(st.sampled_from([("client.properties", CONSOLE), (".env", COURSE)]))
    text = text.replace(SECRET, secret)
    for _ in range(draw(st.integers(0, 4))):
        at, until = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        lines = text.split("\n")
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 6)):
            case 0:
                text = text[:at] + text[at + 1 :]
            case 1:
                text = text[:at] + draw(st.sampled_from(list("=#\"' \n\r\t[]%${}\x00\ufeffé"))) + text[at:]
            case 2:
                text = "\n".join([*lines[:line], *lines[line + 1 :]])
            case 3:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 4:
                text = "\n".join([*lines[:line], "".join(lines[line : line + 2]), *lines[line + 2 :]])
            case 5:
                text = text[:at] + text[until : until + 3] + text[at:]
            case 6:
                text = text.replace(draw(st.sampled_from(["=", "sasl.", "SASL_", "\n", "password", "PASSWORD"])), "", 1)
    return name, text, secret


def shows_no_secret(capsys, case):
    name, text, secret = case
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    shown = ""
    try:
        config = kh.load_config()
        cluster = kh.Cluster("test", config or {}, True, lambda: None)
        shown += repr(cluster) + repr(kh.telling_settings(config or {}))
    except kh.ConfigError as error:
        shown += f"{error} {error!r} {error.__cause__} {error.args}"
        assert error.__suppress_context__ or error.__context__ is None
        assert "\n" not in str(error)
    finally:
        os.remove(name)
    shown += "".join(capsys.readouterr())
    windows = (secret[i : i + 8] for i in range(len(secret) - 7))
    assert not any(window in shown for window in windows)


many = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(many, max_examples=1_000)
@given(case=damaged_files())
def test_no_secret_in_any_message_whatever_the_damage(capsys, case):
    shows_no_secret(capsys, case)


@pytest.mark.long
@settings(many, max_examples=10_000)
@given(case=damaged_files())
def test_no_secret_in_any_message_whatever_the_damage_10_000_times(capsys, case):
    shows_no_secret(capsys, case)
