"""The fleet's secrets: made once, never changed by chance, and the same keys that controller and broker would make."""

from __future__ import annotations

import base64
import datetime
import itertools
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from vagus_controller import __main__ as controller
from vagus_inventory import certificates, secret_file, secrets

USERS = ["controller", "tokyo", "austin"]
HOSTS = ["203.0.113.7", "broker.example.org", "fd88::4"]


def made(kept: dict[str, Any] | None = None, **changes: Any) -> tuple[secrets.Secrets, list[str]]:
    wanted: dict[str, Any] = {"users": USERS, "tunnels": ["tokyo", "austin"], "hosts": HOSTS, "random": os.urandom}
    return secrets.completed(kept or {}, **(wanted | changes))


def test_what_is_there_is_never_changed() -> None:
    first, told = made()
    assert told
    assert made(first) == (first, [])


def test_a_new_node_adds_what_is_its_own() -> None:
    first, _ = made()
    second, told = made(first, users=[*USERS, "berlin"], tunnels=["tokyo", "austin", "berlin"])
    assert told == ["password of berlin", "WireGuard key of berlin"]
    assert {key: second[key] for key in ("fleet_key", "ca", "broker")} == {
        key: first[key] for key in ("fleet_key", "ca", "broker")
    }
    assert len(set(second["passwords"].values())) == 4


def test_a_new_address_of_the_broker_renews_its_certificate_by_the_same_authority() -> None:
    first, _ = made()
    second, told = made(first, hosts=[*HOSTS, "198.51.100.1"])
    assert second["ca"] == first["ca"]
    assert second["broker"] != first["broker"]
    assert told == ["certificate of the broker for 198.51.100.1, 203.0.113.7, broker.example.org, fd88::4"]


def test_no_authority_where_the_certificate_is_given() -> None:
    assert not {"ca", "broker"} & set(made(hosts=None)[0])


def test_node_keys_are_those_that_the_controller_prints(tmp_path: Path) -> None:
    whole, _ = made()
    (tmp_path / "fleet.key").write_text(whole["fleet_key"] + "\n")
    (tmp_path / "fleet.key").chmod(0o600)
    argv = ["node-keys", "tokyo", "--key-file", str(tmp_path / "fleet.key"), "--out", str(tmp_path)]
    assert controller.main(argv) == 0
    printed = (tmp_path / "tokyo.toml").read_text()
    assert all(f'{name} = "{key}"' in printed for name, key in secrets.node_keys(whole, "tokyo").items())


def test_public_keys_are_those_of_wireguard() -> None:
    # RFC 7748, 6.1: Alice's keys.
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert secrets.public_key(base64.b64encode(private).decode()) == base64.b64encode(public).decode()


def test_the_same_secrets_make_the_same_password_file() -> None:
    line = secrets.password_line("tokyo", "secret")
    assert line == secrets.password_line("tokyo", "secret")
    assert line.startswith("tokyo:$7$101$")
    assert "secret" not in line
    assert secrets.password_line("austin", "secret").split("$")[3] != line.split("$")[3]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"fleet_key": "abc"}, "fleet_key: a key is 64 hex digits; this has"),
        ({"passwords": ["x"]}, "passwords: must be a table of user: password"),
        ({"passwords": {"tokyo": ""}}, "passwords.tokyo: is empty"),
        ({"wireguard": {"tokyo": "short"}}, "wireguard.tokyo: is not a WireGuard key"),
        ({"wireguard": ["x"]}, "wireguard: must be a table of node: key"),
        ({"broker": {"key": "x"}}, "broker: must hold key and certificate"),
        ({"fleetkey": "x"}, "fleetkey: there is no such secret; known are fleet_key"),
        ({"next": {"fleet_key": "zz"}}, "next.fleet_key: a key is 64 hex digits"),
        ({"next": ["x"]}, "next: must be a table"),
    ],
)
def test_a_damaged_secret_is_told_and_not_shown(wrong: dict[str, Any], told: str) -> None:
    problems = secrets.mistakes(made()[0] | wrong)
    assert len(problems) == 1
    assert problems[0].startswith(told)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_openssl_believes_the_broker_by_its_authority_and_its_names() -> None:
    whole, _ = made()
    assert certificates.hosts_of(whole["broker"]["certificate"]) == certificates.sorted_hosts(HOSTS)
    context = ssl.create_default_context(cadata=whole["ca"]["certificate"])
    context.check_hostname = True
    ca = x509.load_pem_x509_certificate(whole["ca"]["certificate"].encode())
    x509.load_pem_x509_certificate(whole["broker"]["certificate"].encode()).verify_directly_issued_by(ca)


def test_a_clock_of_the_past_still_believes_it() -> None:
    """A Pi without a clock battery boots at the time of its image."""
    whole, _ = made()
    for name in ("ca", "broker"):
        certificate = x509.load_pem_x509_certificate(whole[name]["certificate"].encode())
        assert certificate.not_valid_before_utc < datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)


def test_no_certificate_is_for_nobody() -> None:
    assert certificates.hosts_of("rubbish") == []


NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


def judged(given: dict[str, str], hosts: list[str] = HOSTS, **changes: str) -> list[str]:
    """What is said of a certificate with its key and authority; those that are not `given` fit."""
    whole, _ = made()
    texts = {**whole["broker"], "ca": whole["ca"]["certificate"]} | given | changes
    return certificates.mistakes(**texts, hosts=hosts, now=NOW)


def encrypted(key: str) -> str:
    loaded = load_pem_private_key(key.encode(), None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()


def test_a_given_certificate_that_fits_is_not_spoken_of() -> None:
    assert judged({}) == []
    assert judged({}, ["BROKER.example.org"]) == []


def test_a_chain_is_judged_by_its_last_certificate() -> None:
    whole, _ = made()
    chain = whole["broker"]["certificate"] + whole["ca"]["certificate"]
    assert judged({"certificate": chain, "key": whole["broker"]["key"], "ca": whole["ca"]["certificate"]}) == []


def test_a_star_is_for_one_label() -> None:
    ca = certificates.authority()
    given = {**certificates.server(ca, ["*.example.org"]), "ca": ca["certificate"]}
    assert judged(given, ["a.example.org"]) == []
    for other in ("example.org", "a.b.example.org", "203.0.113.7"):
        assert judged(given, [other])[0].startswith(f"vagus_broker_certificate_file: is not for {other}, where agents")


def test_what_is_wrong_with_a_given_certificate_is_told_by_its_variable() -> None:
    other, _ = made()
    assert judged({}, certificate="x") == ["vagus_broker_certificate_file: holds no certificate in PEM"]
    assert judged({}, key="x", ca="x") == [
        "vagus_broker_ca_file: holds no certificate in PEM",
        "vagus_broker_key_file: holds no key in PEM",
    ]
    assert judged({}, key=encrypted(other["broker"]["key"]))[0].startswith("vagus_broker_key_file: is encrypted")
    assert judged({}, key=other["broker"]["key"]) == [
        "vagus_broker_key_file: is not the key of vagus_broker_certificate_file"
    ]
    assert judged({}, ca=other["ca"]["certificate"])[0].startswith("vagus_broker_ca_file: did not sign")
    assert judged({}, [*HOSTS, "10.88.0.4"]) == [
        "vagus_broker_certificate_file: is not for 10.88.0.4, where agents or controllers look for the broker; it is "
        "for 203.0.113.7, broker.example.org, fd88::4"
    ]


def test_a_given_certificate_that_has_ended_is_told() -> None:
    whole, _ = made()
    texts = {**whole["broker"], "ca": whole["ca"]["certificate"]}
    late = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
    assert certificates.mistakes(**texts, hosts=HOSTS, now=late) == [
        "vagus_broker_certificate_file: ended on 2099-12-31"
    ]


# --- a change of keys ------------------------------------------------------------------------------------------------


def test_keys_to_come_stand_beside_those_in_force_until_they_are_promoted() -> None:
    first, _ = made()
    coming, told = secrets.staged(first, USERS, os.urandom)
    assert told == ["next fleet key", *(f"next password of {user}" for user in USERS)]
    assert {key: coming[key] for key in first} == first
    half = secrets.with_next(coming, ["passwords"])
    assert half["passwords"] == coming["next"]["passwords"]
    assert half["fleet_key"] == first["fleet_key"]
    whole = secrets.with_next(half, ["fleet_key"])
    assert whole["fleet_key"] == coming["next"]["fleet_key"]
    assert "next" not in whole
    assert secrets.mistakes(coming) == secrets.mistakes(whole) == []


def test_an_interrupted_change_goes_on_with_the_same_keys() -> None:
    coming, _ = secrets.staged(made()[0], USERS, os.urandom)
    assert secrets.staged(coming, USERS, os.urandom) == (coming, [])


def test_an_interrupted_change_is_taken_up_where_its_files_are_there_already() -> None:
    """What a daemon still runs by, nobody sees in its files: whether they changed just now decides nothing."""
    plays = yaml.safe_load((Path(__file__).parents[2] / "ansible/rotate-keys.yml").read_text())
    tasks = {task["name"]: task for play in plays for task in play["tasks"]}
    for name in ("The broker takes them", "Everybody uses it"):
        assert "when" not in tasks[name]
        assert "changed" not in str(tasks[name].get("vars"))


def test_after_the_passwords_are_in_force_none_is_made_again_for_the_rest_of_the_change() -> None:
    coming, _ = secrets.staged(made()[0], USERS, os.urandom)
    half = secrets.with_next(coming, ["passwords"])
    assert secrets.with_next(half, ["passwords"]) == half


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_private_and_comes_back_as_it_was(tmp_path: Path) -> None:
    file, (whole, _) = tmp_path / "vagus-secrets.yml", made()
    secret_file.write(file, whole, None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret_file.parsed(file, secret_file.text(file)) == whole
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_an_encrypted_file_stays_encrypted(tmp_path: Path) -> None:
    class Vault:
        def encrypt(self, plaintext: str) -> bytes:
            return b"$ANSIBLE_VAULT;" + plaintext.encode()[::-1]

    file = tmp_path / "vagus-secrets.yml"
    secret_file.write(file, {"fleet_key": "abc"}, Vault())
    assert file.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    assert b"fleet_key" not in file.read_bytes()


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vagus-secrets.yml"
    file.write_text("fleet_key: x\n")
    file.chmod(0o644)
    with pytest.raises(secret_file.Unusable, match=r"its mode is 0644: chmod 600"):
        secret_file.text(file)


@pytest.mark.parametrize(
    ("content", "told"),
    [("a: [", "is no YAML"), ("- a", "must be a table"), ("fleet_key: !vault |\n  x", "is no YAML")],
)
def test_a_file_that_is_none_is_told(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(secret_file.Unusable, match=told):
        secret_file.parsed(tmp_path / "x", content)


@pytest.mark.parametrize("name", ["fleet_key", "passwords", "wireguard", "ca", "broker", "operator_password"])
def test_what_was_taken_out_of_the_file_is_made_anew_though_its_name_stays(name: str, tmp_path: Path) -> None:
    first, _ = made()
    file = tmp_path / "vagus-secrets.yml"
    secret_file.write(file, first | {name: None, "next": None}, None)
    kept = secret_file.parsed(file, secret_file.text(file))
    assert secrets.mistakes(kept) == []
    second, told = made(kept)
    assert told
    assert second[name] != first[name]
    assert "next" not in second


def test_no_file_holds_nothing(tmp_path: Path) -> None:
    assert secret_file.parsed(tmp_path, secret_file.text(tmp_path / "none")) == {}


def test_passwords_differ_and_are_long() -> None:
    passwords = list(made()[0]["passwords"].values())
    assert all(a != b for a, b in itertools.combinations(passwords, 2))
    assert all(len(password) == 24 for password in passwords)
    assert yaml.safe_load(yaml.safe_dump(passwords)) == passwords
