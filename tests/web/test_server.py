"""`webui` as a command: what it prints, what it refuses, how it ends; and `metrics`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.shell import Shell, has_two_sentences
from tests.web.conftest import TOKEN
from tests.web.wire import connect

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl import Spool
    from tests.conftest import Until
    from tests.web.conftest import Serve, Server


def test_webui_prints_its_address_and_listens_there_only(server: Server) -> None:
    assert server.printed == f"http://127.0.0.1:{server.port}/"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_that_others_can_reach_needs_a_token(shell: Shell, host: str) -> None:
    said = shell.refused("webui", "--host", host, "--port", "0", status=2)
    assert "no token" in said


def test_a_token_comes_from_the_option_the_environment_or_is_made_up(serve: Serve) -> None:
    assert serve("--token", TOKEN).printed.endswith(f"/?token={TOKEN}")
    assert serve(env={"QUEUECTL_TOKEN": TOKEN}).printed.endswith(f"/?token={TOKEN}")
    made = {serve("--token").printed.partition("token=")[2] for _ in range(2)}
    assert len(made) == 2
    assert all(len(token) >= 32 for token in made)


def test_with_a_token_it_may_listen_everywhere(serve: Serve) -> None:
    server = serve("--host", "0.0.0.0", "--token", TOKEN, "--allow-host", "queue.lan")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("127.0.0.1", "192.0.2.1:5000", socket.gethostname(), "queue.lan"):
        assert server.ask("/", headers={"Host": host, **bearer}).status == 200, host
    assert server.ask("/", headers={"Host": "evil.example", **bearer}).status == 421


@pytest.mark.parametrize("token", ["short", "with a\ttab in its middle", "é" * 20])
def test_a_bad_token_is_refused(shell: Shell, token: str) -> None:
    assert "16" in shell.refused("webui", "--token", token, status=2)


def test_a_taken_port_is_refused(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = shell.refused("webui", "--port", str(taken.getsockname()[1]), status=1)
    assert "is taken" in said


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "not an address"])
def test_an_unknown_host_is_refused(shell: Shell, host: str) -> None:
    assert "There is no host" in shell.refused("webui", "--host", host, "--token", TOKEN, status=2)


def test_a_directory_that_is_no_spool_is_refused(shell: Shell) -> None:
    assert "not a spool" in shell.refused("--spool", str(shell.home), "webui", status=1)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "jinja2"])
def test_webui_without_its_extra_names_the_command_that_installs_it(spool: Spool, missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from queuectl.cli.main import run; sys.exit(run())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--spool", str(spool.path), "webui"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert has_two_sentences(done.stderr), done.stderr
    assert missing in done.stderr
    command = done.stderr.partition("Run: ")[2].strip()
    assert command.startswith(f"{sys.executable} -m pip install ")
    assert all(f"'{name}" in command for name in ("starlette", "uvicorn", "jinja2"))


def test_no_other_command_needs_the_extra(spool: Spool) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['starlette', 'uvicorn', 'jinja2', 'markupsafe']));"
        "from queuectl.cli.main import run;"
        "sys.exit(sum(run([*sys.argv[1:], *words.split()]) for words in"
        " ('status', 'metrics', 'webui --help', 'enqueue true', 'list')))"
    )
    subprocess.run([sys.executable, "-c", program, "--spool", spool.path], capture_output=True, check=True)


def test_ctrl_c_ends_open_streams(serve: Serve) -> None:
    server = serve(
        first="import queuectl.web.server as s; s.GRACE = 3600"
    )  # a stream could go on for that long
    lines = [connect(server) for _ in range(6)]
    for line in lines[:3]:
        line.sendall(b"GET /live?page=/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in line.recv(4096)
    lines[3].sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert server.interrupt() == 130
    for line in lines:
        line.close()


def test_open_opens_the_page_with_its_token(serve: Serve, tmp_path: Path, until: Until) -> None:
    seen = tmp_path / "seen"
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.new && mv {seen}.new {seen}\n')
    opener.chmod(0o755)
    server = serve("--open", "--token", TOKEN, env={"BROWSER": f"{opener} %s"})
    until(seen.exists, "the browser is opened")
    assert seen.read_text() == server.printed


def test_the_stream_sends_only_the_parts_that_changed(server: Server, spool: Spool) -> None:
    with connect(server) as line:
        line.sendall(b"GET /live?page=/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""
        while got.count(b"event: tick") < 2:
            got += line.recv(65536)
        assert b'"name": "jobs"' in got
        assert got.count(b'"name": "jobs"') == 1
        assert b'"name": "filter"' not in got  # a person may be typing there
        spool.file({"id": "appears", "command": "true"})
        got = b""
        while b"appears" not in got:
            got += line.recv(65536)


def test_metrics_prints_what_prometheus_reads(shell: Shell) -> None:
    shell.file("true", id="one")
    said = shell("metrics")
    families = list(text_string_to_metric_families(said.out))
    counts = {
        one.labels["state"]: one.value
        for family in families
        if family.name == "queuectl_jobs"
        for one in family.samples
    }
    assert counts["pending"] == 1
    assert said.err == ""
    assert os.linesep not in said.out.strip().split("\n")
