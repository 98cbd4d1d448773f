"""The page in a real browser, on a real hub: what users do there from signing in to signing out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.errors import TaskExecutionFailed
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from lab.browser import PHONE, SIZE, Browser
from lab.hub import HubProcess
from lab.waiting import until
from tests.hub.peer import PeerManager, UserEndpoint
from wire.stop_request import KNOWS

pytestmark = pytest.mark.system

SCHEMA = {
    "type": "object",
    "required": ["ACCOUNT"],
    "properties": {
        "ACCOUNT": {"type": "string", "maxLength": 20, "description": "The allocation that is charged."},
        "partition": {"enum": ["debug", "gpu"], "default": "debug"},
        "workers": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4, "description": "processes"},
        "worker_init": {"type": "string", "description": "shell commands before the workers start"},
        "nodes": {"type": "array", "items": {"type": "string"}},
        "image": {"type": "object", "additionalProperties": False, "properties": {"name": {"type": "string"}}},
        "extra": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    },
    "additionalProperties": False,
}
HOSTILE = "<script>document.title = 'run'</script>'\"><img src=/x onerror=\"document.title = 'run'\">\u202e\u0007"


def register(client: Client, **more: Any) -> PeerManager:
    """An endpoint that is there."""
    said = {"multi_user": True, "public": True, **more}
    manager = PeerManager(client.register_endpoint(said.pop("name", "cluster"), None, said.pop("metadata"), **said))
    manager.heartbeat()
    return manager


@pytest.fixture
def cluster(client: Callable[[str], Client]) -> Iterator[PeerManager]:
    """An endpoint of admin's with SCHEMA."""
    metadata = {"hostname": "login1.example.org", "user_config_schema": SCHEMA, "user_config_template": "engine: {}"}
    manager = register(client("admin"), display_name="The Cluster", metadata=metadata)
    yield manager
    manager.close()
    client("admin").delete_endpoint(manager.id)


@pytest.fixture
def executor(client: Callable[[str], Client], cluster: PeerManager) -> Iterator[Executor]:
    """Alice's."""
    Executor._default_task_group_id = None  # the public client shares it between executors, also of other users
    with Executor(cluster.id, client=client("alice"), user_endpoint_config={"ACCOUNT": "phys"}) as executor:
        yield executor
        executor.shutdown(wait=False, cancel_futures=True)
        executor._task_submitter.join(10)


def sign_in(browser: Browser, hub: HubProcess, name: str) -> None:
    browser.open(f"{hub.url}/")
    browser.fill("Client id", hub.users[name].client_id)
    browser.fill("Client secret", hub.users[name].client_secret)
    browser.follow("Sign in")
    browser.wait_for(f"{name}@example.org")


def double(x):
    return 2 * x


def test_from_signing_in_to_a_program_that_runs(browser: Browser, hub: HubProcess, cluster: PeerManager) -> None:
    """All of it in a browser that runs no script."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open(hub.url)
    browser.fill("Client id", hub.users["alice"].client_id)
    browser.fill("Client secret", "a guess")
    browser.follow("Sign in")
    assert "not known here" in browser.text
    sign_in(browser, hub, "alice")
    assert "Online" in browser.text
    browser.follow("The Cluster")
    assert "login1.example.org" in browser.text
    for said in ("The allocation that is charged.", "A whole number, from 1 to 64. Default: 4", "As JSON."):
        assert said in browser.text
    browser.fill("f2", "65")
    browser.follow("Make the program")
    assert "2 values do not fit" in browser.text and "This endpoint needs a value here." in browser.text
    browser.fill("f0", "phys")
    Select(browser.driver.find_element(By.NAME, "f1")).select_by_visible_text("gpu")
    browser.fill("f2", "8")
    browser.fill("f3", f"module load gcc{Keys.ENTER}export A='x'")
    browser.fill("f4", f"n1{Keys.ENTER}n2")
    browser.fill("f5.0", "x.sif")
    browser.fill("f6", '{"a": [true]}')
    browser.follow("Make the program")
    program = browser.driver.find_element(By.CSS_SELECTOR, "#snippet code").text
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "button.copy"), "scripts are off"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **hub.client_environment("alice")},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        _, command = cluster.next_command(60)
        assert command["kwargs"]["user_opts"] == {
            "ACCOUNT": "phys",
            "partition": "gpu",
            "workers": 8,
            "worker_init": "module load gcc\nexport A='x'",
            "nodes": ["n1", "n2"],
            "image": {"name": "x.sif"},
            "extra": {"a": [True]},
        }
        endpoint = UserEndpoint(command)
        endpoint.heartbeat()
        endpoint.run(endpoint.take(60)[1])
        assert running.communicate(timeout=60)[0].strip() == socket.gethostname()
        endpoint.close()
    browser.follow("Tasks")
    assert "hello" in browser.text and "Done" in browser.text
    browser.follow("Sign out")
    assert "Client secret" in browser.text


def test_why_a_task_waits_and_the_end_of_its_user_endpoint(
    browser: Browser, hub: HubProcess, cluster: PeerManager, executor: Executor
) -> None:
    future = executor.submit(double, 1)
    _, command = cluster.next_command(60)
    sign_in(browser, hub, "alice")
    browser.follow("Tasks")
    assert "double" in browser.text
    assert "it has not reported yet. The endpoint is online." in browser.text
    endpoint = UserEndpoint(command)
    endpoint.heartbeat(total_workers=0, posix_username="alice", **{KNOWS: True})

    browser.wait_for("Waiting for nodes")  # by itself: the list is kept fresh
    browser.follow("User endpoints")
    for said in ("The Cluster", "Running", "1 task waits", "as alice", "0 workers"):
        assert said in browser.text
    browser.click("Its options")
    assert '"ACCOUNT": "phys"' in browser.text
    browser.click("Stop")
    browser.follow("Stop it now")
    assert "Asked to stop" in browser.text
    with pytest.raises(TaskExecutionFailed, match="You have stopped the user endpoint"):
        future.result(60)
    delivery = endpoint.tasks.get(60)
    assert delivery is not None and delivery[1].headers == {"command": "stop"} and delivery[2] == b""
    endpoint.heartbeat(active=False)
    # Alice may have others, of other tests.
    its = f"//li[.//span[@class='id' and normalize-space()='{endpoint.id}']]"

    def stopped() -> bool:
        browser.driver.refresh()
        return "Stopped" in browser.text_at(its)

    until(stopped, "the page to know its last heartbeat")
    assert not browser.driver.find_elements(By.XPATH, f"{its}//button[@class='danger']")
    endpoint.close()
    browser.follow("Tasks")
    assert "Failed" in browser.text and "You have stopped the user endpoint" in browser.text
    assert cluster.no_command(0.5), "nobody starts it again"


def of_alice_alone(x: int) -> int:
    """A name that no other test leaves in bob's list."""
    return x


def test_two_users_see_nothing_of_each_others(
    browser: Browser, hub: HubProcess, cluster: PeerManager, executor: Executor, client: Callable[[str], Client]
) -> None:
    private = register(client("admin"), name="private", public=False, metadata={})
    executor.submit(of_alice_alone, 1)
    _, command = cluster.next_command(60)
    user_endpoint = command["kwargs"]["amqp_creds"]["endpoint_id"]
    sign_in(browser, hub, "bob")
    assert private.id not in browser.text and "The Cluster" in browser.text
    for page in ("Tasks", "User endpoints"):
        browser.follow(page)
        assert user_endpoint not in browser.text and "of_alice_alone" not in browser.text
    browser.open(f"{hub.url}/page/endpoints/{cluster.id}/starts")
    assert "registered to somebody else" in browser.text
    browser.follow("Sign out")
    assert "Sign in" in browser.text
    browser.open(f"{hub.url}/page/tasks")
    assert "Client secret" in browser.text, "the session is over"
    sign_in(browser, hub, "admin")
    assert "private" in browser.text
    browser.follow("The Cluster")
    browser.follow("Starts of its user endpoints")
    assert "alice@example.org" in browser.text and user_endpoint in browser.text
    assert browser.driver.find_elements(By.CSS_SELECTOR, "svg.starts rect.waiting")
    private.close()
    client("admin").delete_endpoint(private.id)


def test_names_of_strangers_do_nothing_and_pages_fit_a_phone(
    hub: HubProcess, client: Callable[[str], Client], cluster: PeerManager
) -> None:
    long = HOSTILE + "x" * 10_000
    schema = {
        "properties": {
            HOSTILE: {"type": "string", "description": long, "title": long, "default": long, "pattern": long},
            f"{HOSTILE}2": {"enum": [long]},
            f"{HOSTILE}3": {"$ref": long},
        }
    }
    metadata = {"hostname": long, "user_config_schema": schema, "user_config_template": long}
    name = long[:250]  # the most that one is taken by
    evil = register(client("mallory"), name=name, display_name=name, metadata=metadata)
    evil_client = client("mallory")
    function = evil_client.register_function(double)
    evil_client.run(1, endpoint_id=evil.id, function_id=function)
    _, command = evil.next_command(60)
    endpoint = UserEndpoint(command)
    endpoint.heartbeat(error=f"{long}\n" * 3)
    addresses = ["endpoints", f"endpoints/{evil.id}", f"endpoints/{evil.id}/starts", "tasks", "user-endpoints"]
    for size, dark in ((SIZE, False), (PHONE, True)):
        with Browser(size=size, dark=dark) as browser:
            sign_in(browser, hub, "mallory")
            for address in (*addresses, f"endpoints/{cluster.id}", ""):
                browser.open(f"{hub.url}/page/{address}")
                title = browser.driver.title
                assert title.endswith(" Compute"), title
                assert not browser.driver.find_elements(By.CSS_SELECTOR, "img, main script")
                assert not any(c in browser.driver.page_source for c in "\u202e\u0007")
                assert not browser.is_wider_than_window(), address
            ground = browser.driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
            shades = [int(part) for part in ground.split("(")[1].rstrip(")").split(",")[:3]]
            assert max(shades) < 60 if dark else min(shades) > 200
    endpoint.close()
    evil.close()
    evil_client.delete_endpoint(evil.id)


def test_with_a_keyboard_one_comes_to_the_content_first(browser: Browser, hub: HubProcess) -> None:
    sign_in(browser, hub, "alice")
    browser.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.driver.switch_to.active_element
    assert skip.text == "To the content" and skip.location["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.driver.switch_to.active_element.tag_name == "main"
