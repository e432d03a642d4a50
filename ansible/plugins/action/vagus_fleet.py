"""Action `vagus_fleet`, on the control machine: the edge of vagus_inventory, which does the thinking.

do: read      judge the inventory alone, and with `what: [secrets]` whether the secrets file can be read; shows none
    check     judge inventory, release, secrets file and what the hosts said; every problem at once; changes nothing
    secrets   make what is missing in the secrets file
    stage     put the keys to come into the secrets file, beside those in force
    promote   make `what` of the keys to come those in force
    plan      what this host gets, with its secrets: the task needs no_log. `what`: as if promoted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import AnsibleVaultError, is_encrypted
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).parents[1]))
try:
    from vagus_inventory import certificates, hosts, plan, secret_file, secrets, settings, variables
    from vagus_inventory.fleet import GROUPS, Fleet, read
    from vagus_inventory.secret_file import Unusable
except ModuleNotFoundError as error:
    raise AnsibleError(
        f"Python package {error.name} is missing beside Ansible ({sys.executable}): "
        "pip install '/path/to/vagus[ansible]' there, as docs/ansible.md says"
    ) from error
finally:
    sys.path.pop(0)

_BATCHES = "vagus_rollout_batches"


class ActionModule(ActionBase):  # type: ignore[misc]
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        assert task_vars is not None
        _, arguments = self.validate_argument_spec(
            {
                "do": {"choices": ["read", "check", "secrets", "stage", "promote", "plan"], "required": True},
                "what": {"type": "list", "elements": "str", "default": []},
            }
        )
        do, what = arguments["do"], arguments["what"]
        fleet, problems = self._fleet(task_vars)
        if do == "check" and fleet is not None:
            problems += settings.mistakes(fleet) if not problems else []
            problems += self._given(fleet) if not problems else []
            problems += self._outside(fleet, task_vars, rotates="rotation" in what)
        if problems or fleet is None:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise AnsibleActionFail(
                f"{count}; nothing was changed anywhere.\n" + "\n".join(f"  - {problem}" for problem in problems),
                result={"problems": problems},
            )
        if do == "read" and "secrets" not in what:
            return result | {"changed": False, "hosts": list(fleet.hosts)}
        file = self._file(fleet, task_vars)
        try:
            kept, vault = self._kept(file)
        except Unusable as error:
            raise AnsibleActionFail(str(error)) from None
        whole, made = secrets.completed(
            kept,
            users=settings.users(fleet),
            tunnels=plan.tunnels(fleet),
            hosts=plan.certificate_hosts(fleet),
            random=os.urandom,
        )
        if do in ("secrets", "stage", "promote"):
            if do == "stage":
                whole, more = secrets.staged(whole, settings.users(fleet), os.urandom)
                made += more
            elif do == "promote":
                if set(what) & set(whole.get("next", {})):
                    made.append(f"in force: {', '.join(what)}")
                whole = secrets.with_next(whole, what)
            changed = whole != kept
            if changed and not self._task.check_mode:
                secret_file.write(file, whole, vault)
            return result | {"changed": changed, "file": str(file), "made": made}
        if do == "plan":
            host = fleet.hosts[task_vars["inventory_hostname"]]
            whole = secrets.with_next(whole, what)
            release = self._path(host["release_dir"]).resolve()
            named = {
                "release_dir": str(release),
                "version": hosts.release_version(str(release)),
                "secrets_file": str(file),
            }
            return result | {"changed": False, **named, **plan.host_plan(fleet, host, whole, self._given_ca(fleet))}
        return result | {"changed": False, "hosts": list(fleet.hosts)}

    def _fleet(self, task_vars: Mapping[str, Any]) -> tuple[Fleet | None, list[str]]:
        groups = {group: list(task_vars["groups"].get(group, ())) for group in GROUPS}
        given: dict[str, dict[str, Any]] = {}
        problems = []
        for name in {host for members in groups.values() for host in members}:
            theirs = task_vars["hostvars"][name]
            given[name] = {}
            for variable in (key for key in theirs if key.startswith("vagus_")):
                try:
                    given[name][variable] = variables.plain(theirs[variable])
                except AnsibleError as error:
                    problems.append(f"{name}: {variable}: {error.message}")
        if problems:
            return None, problems
        fleet, problems = read(groups, given, variables.declared())
        # The batches of a play are counted before any host's variables are known.
        if any(_BATCHES in theirs for theirs in given.values()) and _BATCHES not in load_extra_vars(self._loader):
            problems.append(f"{_BATCHES}: has no effect in the inventory: give it on the command line, by -e")
        return fleet, problems

    def _outside(self, fleet: Fleet, task_vars: Mapping[str, Any], *, rotates: bool) -> list[str]:
        """Problems of the release, the secrets file and the hosts."""
        seen = {
            name: hosts.facts(task_vars["hostvars"][name]["_vagus_common_seen"])
            for name in task_vars["ansible_play_hosts_all"]
            if name in fleet.hosts and "_vagus_common_seen" in task_vars["hostvars"][name]
        }
        problems: list[str] = []
        release = self._path(next(iter(fleet.hosts.values()))["release_dir"])
        targets, wrong = hosts.release_in(release)
        problems += [*wrong, *hosts.problems(seen, fleet, hosts.release_version(str(release)), targets)]
        file = self._file(fleet, task_vars)
        try:
            kept, _ = self._kept(file)
        except Unusable as error:
            return [*problems, str(error)]
        problems += [f"{file}: {mistake}" for mistake in secrets.mistakes(kept)]
        if "next" in kept and not rotates:
            problems.append(f"{file}: a change of keys was interrupted: run rotate-keys.yml again, and it goes on")
        running = hosts.fleet_is_running(seen)
        if running and "fleet_key" not in kept and not next(iter(fleet.hosts.values()))["secrets_new"]:
            problems.append(
                f"{file}: {'holds no fleet_key' if kept else 'is not there'}, and {', '.join(running)} run a fleet "
                "already: bring the file back, or say -e vagus_secrets_new=true"
            )
        return problems

    def _kept(self, file: Path) -> tuple[dict[str, Any], Any]:
        """The secrets in `file`, and the vault that it was encrypted with, if any."""
        text = secret_file.text(file)
        vault = None
        if is_encrypted(text):
            vault = self._loader._vault
            try:
                text = vault.decrypt(text).decode()
            except AnsibleVaultError:
                raise Unusable(
                    f"{file}: cannot be decrypted: run with --ask-vault-pass or --vault-password-file, and the right "
                    "one"
                ) from None
        return secret_file.parsed(file, text), vault

    def _given(self, fleet: Fleet) -> list[str]:
        """What is wrong with a certificate that was given."""
        problems = []
        for host in fleet.brokers:
            texts = {}
            for name in ("certificate", "key", "ca"):
                if file := host[f"broker_{name}_file"]:
                    try:
                        texts[name] = self._path(file).read_text()
                    except (OSError, UnicodeDecodeError) as error:
                        why = error.strerror if isinstance(error, OSError) else "it is no text; PEM is wanted"
                        problems.append(f"{host.name}: vagus_broker_{name}_file: {file} cannot be read: {why}")
            if len(texts) == 3:
                wrong = certificates.mistakes(**texts, hosts=settings.sought_brokers(fleet), now=datetime.now(UTC))
                problems += [f"{host.name}: {what}" for what in wrong]
        return problems

    def _given_ca(self, fleet: Fleet) -> str:
        for host in fleet.brokers:
            if host["broker_ca_file"]:
                return self._path(host["broker_ca_file"]).read_text()
        return ""

    def _path(self, path: str) -> Path:
        """Relative to the playbooks."""
        return Path(self._loader.path_dwim(path))

    def _file(self, fleet: Fleet, task_vars: Mapping[str, Any]) -> Path:
        """The secrets file: relative to the inventory."""
        base = task_vars.get("inventory_dir") or self._loader.get_basedir()
        return Path(base) / Path(next(iter(fleet.hosts.values()))["secrets_file"]).expanduser()
