"""Configuration: what is accepted, what is refused with which sentence, and that no secret ever shows."""

import os
import re
import socket
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cluster import Cluster
from harness.config import ENV_KEYS, PLACEHOLDER, load_config, shown_settings
from harness.errors import ConfigError

SECRET = "cflt" + "K9x+Zq/7wPm2vT8rYb4LsN6aJd0HeXuG3oQiW1kRfBgMzCnV5tSyDpEjUlOh"
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
    for key in ENV_KEYS:
        monkeypatch.delenv(key, raising=False)


def write(name: str, content: str | bytes) -> None:
    with open(name, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(name, 0o600)


def test_nothing_given_is_none():
    assert load_config() is None


def test_nothing_is_connected_to():
    """Nor looked up: without a network, that would take seconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for _ in range(20):
            write("client.properties", CONSOLE.replace(EXPECTED["bootstrap.servers"], address))
            assert load_config()["bootstrap.servers"] == address
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()


def test_console_file(capsys):
    write("client.properties", CONSOLE)
    assert load_config() == EXPECTED | {"client.id": "ccloud-python-client-1f2e"}
    assert capsys.readouterr().out == "Configuration from client.properties.\n"


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
        lambda text: text + "delivery.report.only.error=true\n",
    ],
    ids=["bom", "crlf", "spaces", "quotes", "comment", "header", "singular", "registry", "only errors reported"],
)
def test_what_can_be_accepted_is_accepted(change):
    write("client.properties", change(CONSOLE))
    assert load_config() == EXPECTED | {"client.id": "ccloud-python-client-1f2e"}


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
    assert load_config() == EXPECTED


def test_environment_wins_over_env_file_and_properties_over_both(monkeypatch, capsys):
    write(".env", COURSE)
    monkeypatch.setenv("SASL_USERNAME", "FROMENVIRONMENT1")
    assert load_config()["sasl.username"] == "FROMENVIRONMENT1"
    assert "Configuration from .env and the environment" in capsys.readouterr().out
    write("client.properties", CONSOLE)
    assert load_config()["sasl.username"] == "ABCDEFGH12345678"


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
    ("client.properties", CONSOLE.replace(SECRET, SECRET[:9] + "\0" + SECRET[9:]), "line 6: a NUL character"),
    ("client.properties", "security.protocol=PLAINTEXT\n", "lacks bootstrap.servers"),
    ("client.properties", "# nothing yet\n", "holds no setting"),
    ("client.properties", CONSOLE.encode("utf-16"), "not a text file in UTF-8"),
    (".env", COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORT="), "line 5 has an unknown key .*SASL_PASSWORD"),
    (".env", COURSE.replace("SASL_USERNAME=ABCDEFGH12345678\n", ""), "lacks SASL_USERNAME"),
    (".env", COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORD "), "line 5 is not of the form KEY=value"),
    (".env", COURSE + "SASL_USERNAME=ANOTHERKEY123456\n", "line 6.*again.*line 4"),
    (
        ".env",
        "BOOTSTRAP_SERVERS=localhost:9092\nSASL_MECHANISMS=PLAIN" + COURSE.splitlines()[-1],
        "line 2: .*MECHANISMS",
    ),
    (".env", "BOOTSTRAP_SERVERS=localhost:9092" + COURSE.splitlines()[-1], "line 1: .*BOOTSTRAP_SERVERS"),
    (".env", COURSE.replace(SECRET, ""), "line 5: SASL_PASSWORD has no value"),
    (".env", COURSE.replace("SASL_SSL", "SASL"), "line 2: .*SECURITY_PROTOCOL"),
    (".env", COURSE.replace(SECRET, SECRET[:9] + "\0" + SECRET[9:]), "line 5: a NUL character"),
]


@pytest.mark.parametrize(
    ("name", "content", "sentence"), REFUSED, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(REFUSED)]
)
def test_what_is_wrong_is_said_in_one_sentence(name, content, sentence):
    write(name, content)
    with pytest.raises(ConfigError) as caught:
        load_config()
    said = str(caught.value)
    assert re.search(sentence, said), said
    assert name in said
    assert "\n" not in said and SECRET not in said


def test_examples_are_recognised_as_such():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for example, name in (("client.properties.example", "client.properties"), (".env.example", ".env")):
        with open(os.path.join(root, example)) as file:
            write(name, file.read())
        with pytest.raises(ConfigError, match="placeholder"):
            load_config()
        os.remove(name)


def test_a_folder_in_place_of_the_file():
    os.mkdir("client.properties")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config()


@pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX matter")
def test_a_file_that_others_can_read_gets_a_warning(capsys):
    write("client.properties", CONSOLE)
    os.chmod("client.properties", 0o644)
    load_config()
    assert "chmod 600 client.properties" in capsys.readouterr().out


def test_an_error_shows_as_its_sentence_alone_in_a_notebook():
    assert ConfigError("What to do.")._render_traceback_() == ["ConfigError: What to do."]


WORDS = ["true", "false", "PLAIN", "SSL", "all", "none", "gzip", "line", "client", "secret", "key"]
secrets_ = st.one_of(
    st.text(string.ascii_letters + string.digits + "+/=", min_size=16, max_size=64),
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=7),
    st.integers(0, 10**12).map(str),
    st.sampled_from(WORDS),
).filter(lambda secret: not PLACEHOLDER.fullmatch(secret))
EVERY_LETTER = string.ascii_lowercase, string.ascii_uppercase, string.digits
ANOTHER = str.maketrans("".join(EVERY_LETTER), "".join(each[7:] + each[:7] for each in EVERY_LETTER))


@st.composite
def damaged_files(draw):
    """A file with credentials, and a few slips of the kind that fingers and editors make; and how to make another.

    The other has another secret of the same shape, and the same slips.
    """
    secret = draw(secrets_)
    name, text = draw(st.sampled_from([("client.properties", CONSOLE), (".env", COURSE)]))
    texts = [text.replace(SECRET, each) for each in (secret, secret.translate(ANOTHER))]
    for _ in range(draw(st.integers(0, 4))):
        length = len(texts[0])
        at, until = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
        line = draw(st.integers(0, texts[0].count("\n")))
        kind = draw(st.integers(0, 6))
        stray = draw(st.sampled_from(list("=#\"' \n\r\t[]%${}\x00\ufeffé")))
        lost = draw(st.sampled_from(["=", "sasl.", "SASL_", "\n", "password", "PASSWORD"]))  # never in a secret
        texts = [damaged(text, kind, at, until, line, stray, lost) for text in texts]
    return name, texts, secret


def damaged(text, kind, at, until, line, stray, lost):
    lines = text.split("\n")
    match kind:
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + stray + text[at:]
        case 2:
            return "\n".join([*lines[:line], *lines[line + 1 :]])
        case 3:
            return "\n".join([*lines[:line], lines[line], *lines[line:]])
        case 4:
            return "\n".join([*lines[:line], "".join(lines[line : line + 2]), *lines[line + 2 :]])
        case 5:
            return text[:at] + text[until : until + 3] + text[at:]
        case 6:
            return text.replace(lost, "", 1)


def all_that_is_shown(capsys, name, text):
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.chmod(name, 0o600)
    try:
        config = load_config()
        shown = repr(Cluster("test", config or {}, print)) + repr(shown_settings(config or {}))
    except ConfigError as error:
        shown = f"{error} {error!r} {error.__cause__} {error.args}"
        assert error.__suppress_context__ or error.__context__ is None
        assert "\n" not in str(error)
    finally:
        os.remove(name)
    return shown + "".join(capsys.readouterr())


def shows_no_secret(capsys, case):
    name, (text, other), secret = case
    shown = all_that_is_shown(capsys, name, text)
    windows = (secret[i : i + 8] for i in range(len(secret) - 7))
    assert not any(window in shown for window in windows if window not in KNOWN)
    # A short one may be a word that is shown for another reason; so nothing that is shown may depend on it.
    assert shown == all_that_is_shown(capsys, name, other)


KNOWN = "SASL_SSL, sasl.password, SASL_PASSWORD"


many = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(many, max_examples=500)
@given(case=damaged_files())
def test_no_secret_in_any_message_whatever_the_damage(capsys, case):
    shows_no_secret(capsys, case)


@pytest.mark.long
@settings(many, max_examples=5_000)
@given(case=damaged_files())
def test_no_secret_in_any_message_whatever_the_damage_5_000_times(capsys, case):
    shows_no_secret(capsys, case)


@pytest.mark.parametrize("secret", ["123456", "true", "PLAIN", "SASL_SSL", "5", "all"])
def test_only_settings_that_may_be_shown_are_shown(secret):
    settings = dict.fromkeys([*EXPECTED, "ssl.key.password", "sasl.oauthbearer.client.secret", "client.id"], secret)
    settings |= {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    expected = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    assert shown_settings(settings) == expected
