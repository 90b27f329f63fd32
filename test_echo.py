"""Tests of server.py, client.py and multi_client.py: as processes, over real sockets.

    python -m pytest

Every test starts the scripts as a person would, the server on a free port (--port 0)
that it announces, and ends them again. All together take about fifteen seconds.
"""

import contextlib
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent
WAIT = 10  # seconds after which whatever a test waits for counts as missing
NOBODY = 1  # a port on which nobody listens: it is reserved and long out of use
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds, so that close() resets
MANY = ["multi_client.py", "--clients", 60, "--delay", 0.1, "--port"]
FEW_FILES = ["prlimit", "--nofile=48"]
FEW_THREADS = ["prlimit", "--stack=1000000000", "--as=3500000000"]  # bytes: each, all
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8"}
# A missing flush is not hidden, an unclosed socket is a warning, a warning an error.
ENVIRONMENT.update(PYTHONUNBUFFERED="", PYTHONDEVMODE="1", PYTHONWARNINGS="error")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and resets")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")


@pytest.fixture
def start(tmp_path):
    """Give a function that starts a script, or a changed copy; kill them at the end."""
    started = []

    def start_script(script, *options, changes=(), limits=(), stdout=None, **variables):
        source = (HERE / script).read_text(encoding="utf-8")
        for old, new in changes:
            assert source.count(old) == 1
            source = source.replace(old, new)
            script = tmp_path / f"changed_{len(started)}.py"
            script.write_text(source, encoding="utf-8")
        command = [*limits, sys.executable, HERE / script, *options]
        files = [tmp_path / f"{len(started)}.{kind}" for kind in ["err", "out"]]
        with files[0].open("wb") as err, files[1].open("wb") as out:
            more = {"stdout": stdout or out, "env": {**ENVIRONMENT, **variables}}
            process = subprocess.Popen(list(map(str, command)), stderr=err, **more)
        process.files = files
        started.append(process)
        return process

    yield start_script
    for process in started:
        process.kill()
        process.wait(WAIT)


@pytest.fixture
def start_server(start):
    """Give a function that starts server.py; at the end Ctrl-C has to end it well."""
    servers = []

    def start_it(*options, **more):
        server = start("server.py", "--port", 0, *options, **more)
        servers.append(server)
        server.port = int(wait_for(server, r"listening on port (\d+)\.\.\.")[0])
        return server

    yield start_it
    for server in servers:
        assert stop(server) == 0 or os.name != "posix"
        assert re.findall(r"(?m)^[^\[].*", printed(server)) == []


@pytest.fixture
def server(start_server):
    """Give a running server.py."""
    return start_server()


def test_it_does_what_the_guide_does(server):
    client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client_socket.connect(("localhost", server.port))
    client_socket.sendall(b"Hello, Server!")
    response = client_socket.recv(1024)
    addr = client_socket.getsockname()
    client_socket.close()
    assert response == b"Hello, Server!"
    wait_for(server, "Connection closed")
    assert printed(server) == (
        f"[MainThread] Server listening on port {server.port}... (Ctrl-C to stop)\n"
        f"[MainThread] Accepted connection from {addr}\n"
        f"[{addr[0]}:{addr[1]}] Received 14 bytes: 'Hello, Server!'\n"
        f"[{addr[0]}:{addr[1]}] Connection closed\n"
    )


@pytest.fixture
def connect():
    """Give a function that connects to a server; close all connections at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)
        )


def printed(process):
    """Return what a process has printed so far: the errors, then the rest."""
    return "".join(file.read_text(encoding="utf-8") for file in process.files)


def wait_for(process, pattern, times=1):
    """Return the matches of a pattern in what a process prints, once they are enough."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        found = re.findall(pattern, printed(process))
        if len(found) >= times:
            return found
        time.sleep(0.01)
    pytest.fail(f"{pattern!r} did not come {times} times: {printed(process)[-999:]}")


def stop(process):
    """Press Ctrl-C (on Windows, where no program can, kill); return the exit status."""
    process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
    return process.wait(WAIT)


def succeeds(process):
    """Check that a script ends with status 0 and no error; return what it printed."""
    assert (process.wait(WAIT), process.files[0].read_text()) == (0, "")
    return printed(process)


def fails(process, pattern, status=1):
    """Check that a script ends with a status and one line that has the pattern."""
    assert process.wait(WAIT) == status
    assert re.fullmatch(f".*{pattern}.*\n", process.files[0].read_text("utf-8"))


def echo(client_socket, message):
    """Send a message and check that it comes back."""
    client_socket.sendall(message)
    with client_socket.makefile("rb") as file:
        assert file.read(len(message)) == message


@posix
def test_a_hundred_clients_may_come_at_once_and_say_nothing(connect, server):
    server.send_signal(signal.SIGSTOP)  # so nobody is accepted, all have to queue
    idle = [connect(server) for _ in range(100)]
    server.send_signal(signal.SIGCONT)
    echo(connect(server), b"me first")
    time.sleep(0.3)  # longer than accept() waits at a time
    for client_socket in idle:
        echo(client_socket, b"and now we")
    wait_for(server, "Received", times=101)
    assert printed(server).count("\n") == 1 + 2 * 101


def test_every_byte_comes_back_as_it_was_and_no_other(server, connect):
    client_socket = connect(server)
    for message in [bytes(range(256)), b"\xc3", b"\xa9", os.urandom(100_000)]:
        echo(client_socket, message)
    client_socket.shutdown(socket.SHUT_WR)
    assert client_socket.recv(1) == b""
    assert max(map(len, printed(server).splitlines())) <= 400


@pytest.mark.parametrize("reads", [True, False])
def test_who_reads_late_or_never_keeps_nobody_waiting(connect, server, reads):
    late, sent = connect(server), 0
    late.settimeout(0.3)
    with contextlib.suppress(socket.timeout):
        while True:  # until nothing more fits anywhere, so that the server waits, too
            sent += late.send(b"0123456789" * 10_000)
    echo(connect(server), b"served")
    if reads:  # else Ctrl-C has to end the server while it waits for this client
        late.settimeout(WAIT)
        late.shutdown(socket.SHUT_WR)
        with late.makefile("rb") as file:
            assert file.read() == (b"0123456789" * sent)[:sent]


def test_long_messages_come_back_without_a_stall(server, connect):
    client_socket, took = connect(server), []
    for _ in range(21):
        started = time.perf_counter()
        echo(client_socket, b"x" * 40_000)
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.02  # the stall is 0.04 s; an echo takes 0.0003 s
    wait_for(server, r"\] Received \d+ bytes: 'x{60}'\n")


def test_lines_of_many_threads_stay_whole(start, start_server):
    server = start_server(PYTHONUNBUFFERED="1")
    succeeds(start(*MANY, server.port, "--messages", 20, "--delay", 0))
    wait_for(server, "Connection closed", times=60)
    whole = r"(\[\S+\] (Server l.*|Accepted.*\)|Received \d+ .*'|Connection closed)\n)+"
    assert re.fullmatch(whole, printed(server))


def test_all_three_run_in_idle(start, start_server):
    window = "types.SimpleNamespace(write=sys.stdout.write, flush=sys.stdout.flush)"
    idle = ("import sys\n", f"import sys\nimport types\nsys.stdout = {window}\n")
    server = start_server(changes=[idle])
    for script, *options in [("client.py", "é 你"), ("multi_client.py", "--delay", 0)]:
        succeeds(start(script, "--port", server.port, *options, changes=[idle]))
    wait_for(server, "Received 6 bytes: 'é 你'")


@posix
def test_it_serves_many_though_nobody_reads_its_output(start):
    reader, writer = os.pipe()
    server = start("server.py", "--port", 0, stdout=writer)
    os.close(writer)
    with open(reader) as output:
        port = re.search(r"port (\d+)", output.readline())[1]
    text = succeeds(start(*MANY, port, "--messages", 1, "--delay", 60))
    assert re.search(r"\.\.\. and 40 more\n60 clients, 60 echoes, 0 errors", text)
    assert (stop(server), printed(server)) == (0, "")


@posix
def test_a_reset_costs_one_client_one_line(server, connect):
    for size in [0, 500_000] * 10:
        client_socket = connect(server)
        client_socket.sendall(b"x" * size)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client_socket.close()
    wait_for(server, "Connection lost: .*", times=20)
    echo(connect(server), b"next")
    assert stop(server) == 0
    assert printed(server).count("Connection lost") == 20
    wait_for(server, "Stopping, clients connected: 1")


@linux
def test_out_of_descriptors_it_waits_for_a_client_to_leave(start_server, connect):
    server = start_server(limits=FEW_FILES)
    queue = [connect(server) for _ in range(90)]
    wait_for(server, "Cannot accept clients for now: .*Too many open files")
    for client_socket in queue:
        echo(client_socket, b"served")
        client_socket.close()
    assert printed(server).count("Accepted") == 90
    assert printed(server).count("Cannot") < 5  # one a second


@linux
def test_out_of_threads_it_turns_the_client_away(start_server, connect):
    server = start_server(limits=FEW_THREADS)
    served, *_, turned_away = [connect(server) for _ in range(7)]
    assert turned_away.recv(1) == b""
    wait_for(server, r"Connection from \(.*\) closed: can't start new thread")
    echo(served, b"served")
    assert stop(server) == 0
    held = printed(server).count("Accepted") - printed(server).count("can't start")
    wait_for(server, f"Stopping, clients connected: {held}")


@linux
def test_too_few_descriptors_or_threads_for_all_clients_are_said(start, server):
    for limits, lack in [(FEW_FILES, "Too many"), (FEW_THREADS, "can't start")]:
        failed = f"(?!60)[0-9]+ of 60 clients failed, .*{lack}.*fewer --clients"
        fails(start(*MANY, server.port, limits=limits), failed)


@posix
def test_ctrl_c_ends_it_while_clients_come_and_go(connect, start, server):
    idle = connect(server)
    echo(idle, b"x")
    start("multi_client.py", "--port", server.port, "--clients", 3000, "--delay", 0)
    wait_for(server, "Connection closed", times=300)
    assert stop(server) == 0
    assert idle.recv(1) == b""
    wait_for(server, r"\[MainThread\] Stopping, clients connected: [1-9]")
    wait_for(start("server.py", "--port", server.port), f"on port {server.port}")


# Pieces of server.py, and what makes a worse server of it in their place
NO_THREAD = [("client_thread.start()", "client_thread.run()")]
IMPORT = "from concurrent.futures import ThreadPoolExecutor\n"
POOL = [
    ("import time\n", f"import time\n{IMPORT}\npool = ThreadPoolExecutor(2)\n"),
    ("client_thread.start()", "pool.submit(handle_client, client_socket)"),
]
SEND = "client_socket.sendall(data)\n"
PARTS = "for n in data: client_socket.sendall(bytes([n])); time.sleep(0.005)\n"
LINGER = f"client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, {RESET})"
FAULTS = [
    ("client_socket.sendall(data[:5]); break\n", "closed after 5 of"),
    pytest.param(f"{LINGER}; break\n", ".*reset by peer", marks=posix),
    ("pass\n", "timed out"),
]


@posix
def test_a_second_ctrl_c_ends_even_a_server_that_cannot_stop(start, connect):
    server = start("server.py", "--port", 0, changes=NO_THREAD)
    server.port = wait_for(server, r"on port (\d+)")[0]
    echo(connect(server), b"now the main thread waits for this client")
    server.send_signal(signal.SIGINT)
    time.sleep(0.3)  # longer than accept() waits at a time
    assert server.poll() is None
    assert stop(server) == -signal.SIGINT


@pytest.mark.parametrize("most, changes", [(5, ()), (1, NO_THREAD), (2, POOL)])
def test_the_picture_shows_who_was_served_when(start, start_server, most, changes):
    server = start_server(changes=changes)
    clients = start("multi_client.py", "--port", server.port, "--delay", 0.12)
    _, *bars, _, served, summary = succeeds(clients).splitlines()
    assert served == f"Served at the same time: {most} of 5 clients"
    assert re.fullmatch(r"5 clients, 15 echoes, 0 errors, \d\.\d\ds", summary)
    for bar in bars:
        assert re.fullmatch(r"Client [1-5]  \.*o-+o-+o", bar) and len(bar) < 80
    # Who is not among the first is served when another client has had its last echo.
    for before, after in zip(bars, bars[most:]):
        assert abs(len(before) - after.index("o")) <= 6


@pytest.mark.parametrize("instead, error", FAULTS, ids=["end", "reset", "silence"])
def test_a_server_that_does_not_echo_is_found_out(start, start_server, instead, error):
    server = start_server(changes=[(SEND, instead)])
    options = ["--port", server.port, "--timeout", 0.3]
    fails(start("client.py", *options), f"No echo .*:{server.port}: {error}.*printed")
    clients = start("multi_client.py", *options)
    fails(clients, f"5 of 5 clients failed, first Client . .*: {error}.*printed")


TEXTS = [
    ("utf-8", "é\r\n[MainThread] S\n\x1b[2J", r"'é\r\n[MainThread] S\n\x1b[2J'"),
    ("ascii", "é 你", r"'\xe9 \u4f60'"),
    pytest.param("ascii", "\udcff", r"'\ufffd'", marks=posix),  # a byte, but no text
]


@pytest.mark.parametrize("code, text, shown", TEXTS, ids=["forged", "letters", "byte"])
def test_text_is_shown_as_it_is_or_safe(start, start_server, code, text, shown):
    server = start_server(changes=[(SEND, PARTS)], PYTHONIOENCODING=code)
    client = start("client.py", "--port", server.port, text, PYTHONIOENCODING=code)
    assert succeeds(client) == f"Server responded: {shown}\n"
    assert wait_for(server, r"\] Received \d+ bytes: (.*)\n") == [shown]
    assert succeeds(start("client.py", "--port", server.port, "")).endswith(": ''\n")


def test_who_gets_what_is_not_its_own_fails_alone(start, start_server):
    # Two lines in place of one, hence the indentation of the second.
    mixed_up = 'data = data.replace(b"Client 2", b"Client 4")\n' + " " * 16
    server = start_server(changes=[(SEND, mixed_up + PARTS)])
    clients = start("multi_client.py", "--port", server.port, "--messages", 2)
    error = "sent b'Client 2, message 1', received b'Client 4, message 1'"
    fails(clients, f"1 of 5 clients failed, first Client 2 to localhost: {error}")
    assert "4 of 5 clients\n5 clients, 8 echoes, 1 errors" in printed(clients)


@posix
def test_ctrl_c_ends_a_waiting_client_quietly(start, start_server):
    server = start_server(changes=[(SEND, "pass\n")])
    for number, script in enumerate(["client.py", "multi_client.py"], 1):
        client = start(script, "--port", server.port)
        wait_for(server, "Received", times=number)
        assert stop(client) == -signal.SIGINT
        assert re.fullmatch(r"(Clients: 5 .*\n)?", printed(client))


def test_a_port_that_is_taken_is_said_and_left_in_peace(start, server, connect):
    other = start("server.py", "--port", server.port)
    fails(other, f"Cannot listen on localhost:{server.port}: .*try another --port")
    echo(connect(server), b"undisturbed")


@pytest.mark.parametrize("script", ["server.py", "client.py", "multi_client.py"])
def test_a_host_or_port_that_cannot_be_is_said(start, script):
    hosts = ["a..b", "a" * 300, "é" * 80, "no.such.host.invalid"]
    for host, process in [(host, start(script, "--host", host)) for host in hosts]:
        fails(process, f"{host}.* .*--host")
    fails(start(script, "--port", 65536), "0-65535.*--port")
    fails(start(script, "--port", "http"), "(?s:.*)error: argument --port", status=2)
    words = r"(?s)cho.*--host.*localhost.*--port.*8080\b"
    assert re.search(words, succeeds(start(script, "--help")))


def test_a_number_that_cannot_be_is_said_and_that_nobody_listens(start):
    for option in ["--clients=0", "--messages=0", "--delay=nan", "--timeout=0"]:
        error = "(?s:.*)error: .*" + option.split("=")[0]
        fails(start("multi_client.py", option), error, status=2)
    for value in [0, -1, "nan"]:
        fails(start("client.py", f"--timeout={value}"), "--timeout")
    advice = ".*start server.py first"
    fails(start("client.py", "--port", NOBODY), f"Nobody listens on .*{advice}")
    clients = start("multi_client.py", "--port", NOBODY, "--clients", 20)
    fails(clients, f"20 of 20 clients failed{advice}")
    summary = "Served at the same time: 0 of 20 clients\n20 clients, 0 echoes, 20 err"
    assert f"\n\n{summary}" in printed(clients)


@posix
def test_the_readme_shows_what_is_printed_and_the_heart_of_server(start, start_server):
    def general(text):
        return sorted(re.sub(r"\.*o-+o-+o|\d\.\d\ds|\d{4,5}", "N", text).splitlines())

    texts, many = [], ["multi_client.py", "--delay", 0.03]
    for changes, client in [(NO_THREAD, many), ((), many), ((), ["client.py"])]:
        server = start_server(changes=changes)
        texts.append(succeeds(start(*client, "--port", server.port)))
    wait_for(server, "Connection closed")
    assert stop(server) == 0
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"(?s)```text\n(.*?)```", readme)
    assert list(map(general, shown)) == list(map(general, [*texts, printed(server)]))
    lines = map(str.strip, (HERE / "server.py").read_text("utf-8").splitlines())
    heart = re.search(r"(?s)```python\n(.*?)```", readme)[1].splitlines()
    assert [line for line in heart if line.strip() not in lines] == []
