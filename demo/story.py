"""What the demo shows: real client scripts of two users on three engines, and a stranger who is refused.

Prints a short account of it. `tell` returns whether everything was as it should be.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from demo.site import ENGINES, STRANGER, USERS, Site
from lab import timeline
from lab.client import ClientFailed, run_script

CLIENTS = Path(__file__).parent / "clients"
AT_ONCE = 3
"""Client programs at the same time: one import of the SDK takes a second of one core."""

CONFIGS: dict[str, list[dict[str, Any]]] = {
    "alice": [{"engine": engine, "workers": 2} for engine in ENGINES],
    "bob": [{"engine": engine} for engine in ENGINES],
}


def tell(site: Site) -> bool:
    """Runs the clients and prints what came of them."""
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tours = {
            (user, json.dumps(config)): pool.submit(
                run_script, site.hub, user, CLIENTS / "tour.py", site.manager.endpoint_id, json.dumps(config)
            )
            for engine in range(len(ENGINES))
            for user in USERS
            for config in [CONFIGS[user][engine]]
        }
        good = [_tell_user(site, user, tours) for user in USERS]
    good.append(_tell_stranger(site))
    print(f"\n{len(tours)} sessions of 6 scripts in {time.monotonic() - begin:.1f} s.")
    return all(good)


def _tell_user(site: Site, user: str, tours: dict[tuple[str, str], Future[list[Any]]]) -> bool:
    account = site.accounts[user]
    results = {config: tour.result() for (who, config), tour in tours.items() if who == user}
    rule = next(line["rule"] for line in site.manager.audit("started") if line["account"] == account.name)
    rule = rule.replace(f"{site.manager.profile}/", "")
    print(f"\n{user}@example.org is the local account {account.name}, uid {account.uid}\n  by {rule}")
    good = [_tell_tour(site, account.name, account.uid, config, said) for config, said in results.items()]
    return all(good)


def _tell_tour(site: Site, account: str, uid: int, config: str, said: list[dict[str, Any]]) -> bool:
    start = next(
        s for s in timeline.starts(site.hub, "admin", site.manager.endpoint_id) if _is(s, account, config, site)
    )
    print(f"\n  {json.loads(config)['engine']} with user_endpoint_config {config}")
    print(f"    checked in after {start.first_heartbeat:.2f} s, first result after {start.first_result:.2f} s")
    expected = _expected(account, uid)
    good = True
    for line in said:
        right = line["said"].startswith(expected[line["script"]])
        good = good and right
        print(f"    {'ok' if right else 'WRONG':<5} {line['script'] + '.py':<14} {line['said']}")
    return good and len(said) == len(expected)


def _is(start: timeline.Start, account: str, config: str, site: Site) -> bool:
    owners = {line["endpoint"]: line["account"] for line in site.manager.audit("started")}
    name = f"uep.{site.manager.endpoint_id}.{start.user_endpoint_id}"
    return owners.get(name) == account and start.user_options == json.loads(config)


def _expected(account: str, uid: int) -> dict[str, str]:
    return {
        "sum": "5 + 10 = 15",
        "registered": "squares [1, 4, 9, 16]; get_task says success",
        "program": f"uid={uid}({account}) ",
        "failing": "the task failed: ZeroDivisionError: division by zero",
        "shell": f"hello world from {account} (exit code 3)",
        "many": "100 of 100 results are as expected",
    }


def _tell_stranger(site: Site) -> bool:
    print(f"\n{STRANGER}@example.org is nobody here")
    try:
        said = run_script(
            site.hub, STRANGER, CLIENTS / "tour.py", site.manager.endpoint_id, '{"engine": "ThreadPoolEngine"}'
        )
    except ClientFailed as e:
        reason = next((line.strip() for line in str(e).splitlines() if "not mapped" in line), "")
        print(f"    {'ok' if reason else 'WRONG':<5} {'sum.py':<14} refused: {reason or e}")
        return bool(reason)
    print(f"    WRONG sum.py         {said}")
    return False
