"""Credentials: read from wherever the user has put them, and judged before anything is sent.

What is wrong is said without repeating what a file holds, since a slip can put the secret anywhere.
"""

import contextlib
import io
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

from harness.config import IGNORED_PREFIXES, ClientConfig, producer_settings, refusal_of, refused_settings
from harness.errors import ConfigError

LOGIN = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password")
WITHOUT_PASSWORD = ("OAUTHBEARER", "GSSAPI")  # mechanisms that log in by other means
# The course's keys for .env and the environment (SASL_USERNAME ...) -> the client's own names for the same settings.
ENV_KEYS = {name.upper().replace(".", "_"): name for name in (*LOGIN, "ssl.ca.location")}
KEYS_BY_NAME = {name: key for key, name in ENV_KEYS.items()}
PROPERTIES_KEYS = {name: name for name in KEYS_BY_NAME} | {"sasl.mechanism": "sasl.mechanisms"}
# A file with such a line within so many characters may be meant as one of ours.
ADDRESS = re.compile(r"^\s*(?:export\s+)?(bootstrap\.servers|BOOTSTRAP_SERVERS)\s*=", re.MULTILINE)
MEANT_SIZE = 4_000
RULES = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Entry:
    """The value of a setting, and where the user has put it."""

    value: str = field(repr=False)  # it may be the secret
    file: str  # its name, or "the environment"
    line: int | None = None  # from 1; the environment has none

    @property
    def where(self) -> str:
        """File and line, for a sentence."""
        return self.file if self.line is None else f"{self.file}, line {self.line}"


Entries = dict[str, Entry]  # by the client's name for the setting


def load_config(properties: str | Path = "client.properties", env: str | Path = ".env") -> dict[str, str] | None:
    """Read the client's configuration from wherever the user has put it, and say in a line which place that was.

    ``properties`` is the console's file (``key=value`` lines, also as ``getting_started.ini``), and wins where it
    exists; ``env`` has ``KEY=value`` lines as in the course, and the environment wins over it. Gives the configuration
    for a confluent-kafka client, or None where there are no credentials.

    Raises:
        ConfigError: a place was found, but what stands there can't be used.
    """
    properties = Path(properties)
    env = Path(env)
    if properties.exists():
        return _judged(_read_properties(properties), properties, {})
    in_file = _read_env(env) if env.is_file() else {}  # a virtual environment can be a folder of that name
    entries = in_file | _read_environment()
    # Without an address, and without a secret in the file, what is there belongs to other programs.
    if "bootstrap.servers" in entries or "sasl.password" in in_file:
        return _judged(entries, env, KEYS_BY_NAME)
    _say_what_was_found(properties, env, [KEYS_BY_NAME[name] for name in entries])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path.name} can't be read; it has to be a text file of yours, in UTF-8.") from None


def _read_properties(path: Path) -> Entries:
    """All settings of the console's file; of one with sections, those of the first."""
    entries: Entries = {}
    for number, line in enumerate(map(str.strip, _text(path).splitlines()), start=1):
        if not line or line[0] in "#;!":
            continue
        if line[0] == "[":
            if entries:
                break  # getting_started.ini has a [consumer] section for another program
            continue
        key, equals, value = (part.strip() for part in line.removeprefix("export ").partition("="))
        if key.startswith(IGNORED_PREFIXES):
            continue
        entry = Entry(_without_comment(key, value), path.name, number)
        if not (key and equals):
            raise ConfigError(f"{entry.where} is not of the form key=value; correct or remove it.")
        _add(entries, _name(key, PROPERTIES_KEYS, entry) or key, entry)
    return entries


def _without_comment(key: str, value: str) -> str:
    if quoted := re.fullmatch(r"""(["'])(.*?)\1\s*([#;].*)?""", value):
        return quoted[2]
    if key in ("sasl.username", "sasl.password"):  # in these it could be meant, so it is judged
        return value
    return re.split(r"\s+[#;]", value, maxsplit=1)[0]


def _read_env(path: Path) -> Entries:
    """The settings of a file in which other programs have theirs, too; these are passed over."""
    entries: Entries = {}
    for binding in parse_stream(io.StringIO(_text(path))):
        statement = binding.original.string
        lines_before = statement[: len(statement) - len(statement.lstrip())].count("\n")  # blank ones are counted in
        entry = Entry(binding.value or "", path.name, binding.original.line + lines_before)
        if binding.key is None or binding.value is None:
            if ours := re.search(rf"^\s*(?:export\s+)?({'|'.join(ENV_KEYS)})\b", statement, re.MULTILINE):
                raise ConfigError(f"{entry.where}: {ours[1]} can't be read; type it again as KEY=value, in one line.")
            continue
        if name := _name(binding.key, ENV_KEYS, entry):
            _add(entries, name, entry)
    return entries


def _read_environment() -> Entries:
    entries: Entries = {}
    for key in filter(os.environ.get, ENV_KEYS):
        value = re.sub(r"""^(["'])(.*)\1$""", r"\2", os.environ[key].strip())  # as Docker's --env-file leaves it
        entries[ENV_KEYS[key]] = Entry(value, "the environment")
    return entries


def _name(key: str, names: Mapping[str, str], entry: Entry) -> str | None:
    """The client's name for a key, None if it isn't among ``names``; ConfigError where it is in another file's form."""
    for right, name in names.items():
        if key == right:
            return name
        if re.sub("[._-]", "", key).lower() == re.sub("[._]", "", right).lower():
            raise ConfigError(f"{entry.where}: in this file the key has to be written {right}.")
    return None


def _add(entries: Entries, name: str, entry: Entry) -> None:
    if name in entries:
        raise ConfigError(f"{entry.where}: this key stands in {entries[name].where}, too; keep one of them.")
    entries[name] = entry


def _judged(entries: Entries, file: Path, key_of: Mapping[str, str]) -> ClientConfig:
    """The configuration, if it can be right; ``key_of`` is what the file calls a name, where it calls it otherwise."""
    places = {entry.file for entry in entries.values()}
    place = " and ".join(sorted(places)) or file.name
    _check_values(entries, key_of)
    if missing := [key_of.get(name, name) for name in _required(entries) if name not in entries]:
        raise ConfigError(f"{place} lacks {' and '.join(missing)}; add it as in the example file.")
    _check_accepted(entries, place)
    print(f"Configuration from {place}.")
    if os.name == "posix" and file.name in places and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"Others on this machine can read {file.name}; to keep it to yourself: chmod 600 {file.name}")
    return ClientConfig((name, entry.value) for name, entry in entries.items())


def _check_values(entries: Entries, key_of: Mapping[str, str]) -> None:
    for name, entry in entries.items():
        rules = (RULES["login"] if name in LOGIN else {}) | RULES["every"] | RULES.get(name, {})
        faults = [fault for form, fault in rules.items() if not re.fullmatch(form, entry.value, re.I | re.DOTALL)]
        if name.endswith(".location") and entry.value != "probe" and not os.path.exists(entry.value):
            faults.append("names a file that isn't there; write its whole path, without ~")
        if faults:
            known = name in KEYS_BY_NAME or name in RULES  # another key could hold the secret
            raise ConfigError(f"{entry.where}: {key_of.get(name, name) if known else 'the value'} {faults[0]}.")


def _required(entries: Entries) -> tuple[str, ...]:
    """The names without which nobody can connect in the way that the settings describe."""
    values = {name: entry.value.upper() for name, entry in entries.items()}
    if values.get("sasl.mechanisms") in WITHOUT_PASSWORD:
        return LOGIN[:3]
    if "sasl.password" in values or values.get("security.protocol", "").startswith("SASL_"):
        return LOGIN
    return LOGIN[:1]


def _check_accepted(entries: Entries, place: str) -> None:
    """Let the client judge the rest."""
    settings = ClientConfig((name, entry.value) for name, entry in entries.items())
    if settings.get("sasl.mechanisms", "").upper() == "OAUTHBEARER":
        settings["security.protocol"] = "SSL"  # with a login, it would fetch a token now
    settings = producer_settings(settings)
    if refusal := refusal_of(settings):
        where = " and ".join(entries[name].where for name in refused_settings(refusal, settings))
        raise ConfigError(
            f"{where or f'{place}, several lines'}: the client refuses this setting; correct or remove it."
        )


def _say_what_was_found(properties: Path, env: Path, passed_over: list[str]) -> None:
    without = f"; without it, {' and '.join(passed_over)} are passed over" if passed_over else ""
    nowhere = f"no {properties.name}, and no BOOTSTRAP_SERVERS in {env.name} or the environment"
    print(f"No credentials: {nowhere}{without}.")
    for file in sorted(properties.absolute().parent.glob("*")):
        if file.name in (properties.name, env.name) or file.suffix == ".example" or not file.is_file():
            continue
        with contextlib.suppress(OSError), file.open(encoding="utf-8", errors="replace") as text:
            address = ADDRESS.search(text.read(MEANT_SIZE))
            if address:
                right = properties.name if "." in address[1] else env.name
                print(f"{file.name} isn't read; if it is meant, rename it {right}.")
