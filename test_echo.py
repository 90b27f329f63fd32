"""Tests of server.py, client.py and multi_client.py over real sockets.

    python -m pytest

Each test starts the real scripts as processes, the server on a free port (--port 0)
that it is asked for, and ends them again. The whole takes about ten seconds.
"""

import contextlib
import itertools
import os
import pathlib
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

HERE = pathlib.Path(__file__).parent
WAIT = 10  # seconds after which whatever a test waits for counts as missing
NOBODY = 1  # a port on which nobody listens: it is reserved and long out of use
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds, so close() resets
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    "PYTHONIOENCODING": "utf-8",
    "PYTHONDEVMODE": "1",  # a socket that is never closed becomes a warning,
    "PYTHONWARNINGS": "error",  # and a warning an error, which every test would see
}

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
# Python leaves Ctrl-C ignored where its parent ignores it, as background jobs may do.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Helpers: start programs and servers, wait for what they print, end them


def command(script, options, limits=""):
    """Return the command that runs a script, under limits such as "ulimit -n 48"."""
    python = [sys.executable, str(HERE / script), *map(str, options)]
    return ["sh", "-c", f'{limits} && exec "$@"', "sh", *python] if limits else python


@pytest.fixture
def start():
    """Give a function that starts a script; at the end, stop it as Ctrl-C does."""
    started = []

    def start_script(script, *options, limits="", read=True, **environment):
        process = subprocess.Popen(
            command(script, options, limits),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, **environment},
            encoding="utf-8",
        )
        process.lines, process.seen = queue.Queue(), []
        started.append(process)
        if read:
            threading.Thread(target=read_lines, args=(process,), daemon=True).start()
        return process

    yield start_script
    try:
        for process in started:
            if process.poll() is None:
                assert stop(process) == 0
            assert process.stderr.read() == ""
    finally:
        for process in started:
            process.kill()
            process.wait(WAIT)
            process.stderr.close()


def read_lines(process):
    """Put every line that a process prints into its queue, and None at the end."""
    with process.stdout:
        for line in process.stdout:
            process.lines.put(line)
    process.lines.put(None)


def expect(process, pattern):
    """Return the match of the next line that has the pattern, WAIT seconds at most."""
    deadline = time.monotonic() + WAIT
    while True:
        line = process.lines.get(timeout=max(0, deadline - time.monotonic()))
        assert line is not None, f"ended without printing {pattern!r}"
        process.seen.append(line)
        found = re.search(pattern, line)
        if found:
            return found


def stop(process):
    """Press Ctrl-C and return the exit status."""
    if os.name != "posix":  # Windows can send Ctrl-C only to a whole console
        process.kill()
        process.wait(WAIT)
        return 0
    process.send_signal(signal.SIGINT)
    return process.wait(WAIT)


@pytest.fixture
def start_server(start):
    """Give a function that starts server.py, or a variant of it, and reads its port."""

    def start_it(*options, script="server.py", **more):
        server = start(script, "--port", 0, *options, **more)
        server.port = int(expect(server, r"listening on port (\d+)\.\.\.")[1])
        return server

    return start_it


@pytest.fixture
def server(start_server):
    """Give a running server.py."""
    return start_server()


def run(script, *options, limits="", **environment):
    """Run a script to its end and return its status and what it printed."""
    return subprocess.run(
        command(script, options, limits),
        check=False,
        capture_output=True,
        env={**ENVIRONMENT, **environment},
        encoding="utf-8",
        timeout=WAIT,
    )


def fails(result, *words):
    """Check that a script ended with status 1 and one line that has all the words."""
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


def connect(server, host="127.0.0.1"):
    """Return a socket that is connected to the server."""
    return socket.create_connection((host, server.port), timeout=WAIT)


def receive(client_socket, size):
    """Return the next bytes from a socket: `size` of them, or fewer at its end."""
    received = b""
    while len(received) < size:
        data = client_socket.recv(size - len(received))
        if not data:
            break
        received += data
    return received


def echo(client_socket, message):
    """Send a message and check that it comes back."""
    client_socket.sendall(message)
    assert receive(client_socket, len(message)) == message


def reset(client_socket):
    """Close a connection the hard way: the other side gets an error."""
    client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client_socket.close()


def fill(client_socket):
    """Send without reading until nothing more fits: the server is stuck in sendall."""
    client_socket.settimeout(0.3)
    with pytest.raises(socket.timeout):
        while True:
            client_socket.sendall(b"x" * 1_000_000)


@contextlib.contextmanager
def fake_server(behave):
    """Play a server: behave(number, connection, ended) treats the n-th connection."""
    ended, threads = threading.Event(), []

    def treat(number, connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(WAIT)
            behave(number, connection, ended)

    def accept(listener):
        for number in itertools.count(1):
            try:
                connection = listener.accept()[0]
            except OSError:
                break
            thread = threading.Thread(target=treat, args=(number, connection))
            thread.start()
            threads.append(thread)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        port = listener.getsockname()[1]
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield port
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # ends accept() on Linux,
            listener.close()
            with contextlib.suppress(OSError):  # and a last connection elsewhere
                socket.create_connection(("127.0.0.1", port), 1).close()
            for thread in [accepting, *threads]:
                thread.join(WAIT)


# server.py: what it is for


def test_it_does_what_the_guide_does(server):
    client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client_socket.connect(("localhost", server.port))
    client_socket.sendall(b"Hello, Server!")
    response = client_socket.recv(1024)
    address = client_socket.getsockname()
    client_socket.close()

    assert response == b"Hello, Server!"
    expect(server, "Connection closed")
    name = f"{address[0]}:{address[1]}"
    assert server.seen == [
        f"[MainThread] Server listening on port {server.port}... (Ctrl-C to stop)\n",
        f"[MainThread] Accepted connection from {address}\n",
        f"[{name}] Received: 'Hello, Server!'\n",
        f"[{name}] Connection closed\n",
    ]


def test_clients_that_say_nothing_keep_nobody_waiting(server):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(20)]
        with connect(server) as client_socket:
            echo(client_socket, b"me first")
        for client_socket in idle:
            echo(client_socket, b"and now we")


def test_every_byte_comes_back_as_it_was(server):
    with connect(server) as client_socket:
        echo(client_socket, bytes(range(256)))
        echo(client_socket, "é".encode()[:1])  # half a character,
        echo(client_socket, "é".encode()[1:])  # and the other half
        echo(client_socket, os.urandom(100_000))


def test_a_client_may_stop_sending_and_read_late(server):
    message = os.urandom(2 << 20)
    with connect(server) as client_socket:
        sender = threading.Thread(target=client_socket.sendall, args=(message,))
        sender.start()
        expect(server, "Received")
        assert receive(client_socket, len(message) // 2) == message[: 1 << 20]
        sender.join(WAIT)
        client_socket.shutdown(socket.SHUT_WR)
        assert receive(client_socket, len(message)) == message[1 << 20 :]
        assert client_socket.recv(1) == b""


def test_a_pause_costs_nothing_and_prints_nothing(server):
    with connect(server) as client_socket:
        echo(client_socket, b"before")
        time.sleep(1.2)  # longer than accept() waits at a time
        echo(client_socket, b"after")
    expect(server, "Connection closed")
    assert len(server.seen) == 5


def test_long_messages_come_back_without_a_stall(server):
    took = []
    with connect(server) as client_socket:
        for _ in range(21):
            started = time.perf_counter()
            echo(client_socket, b"x" * 40_000)
            took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.02  # the stall is 0.04 s; an echo takes 0.0003 s


@posix
def test_a_hundred_clients_may_come_at_once(server):
    server.send_signal(signal.SIGSTOP)  # so nobody is accepted, all have to queue
    with contextlib.ExitStack() as stack:
        try:
            queued = [stack.enter_context(connect(server)) for _ in range(100)]
        finally:
            server.send_signal(signal.SIGCONT)
        for client_socket in queued:
            echo(client_socket, b"served")


@linux
def test_it_listens_on_this_computer_alone_unless_told_otherwise(start_server):
    with pytest.raises(ConnectionRefusedError):
        connect(start_server(), "127.0.0.2")  # this computer's too, but not localhost
    with connect(start_server("--host", "0.0.0.0"), "127.0.0.2") as client_socket:
        echo(client_socket, b"hello")


# server.py: what is printed


def test_a_client_cannot_write_to_the_terminal(server):
    forged = b"x\r\n[MainThread] Accepted connection from ('1.2.3.4', 5)\n\x1b[2J\x07"
    with connect(server) as client_socket:
        echo(client_socket, forged)
    expect(server, "Connection closed")
    assert len(server.seen) == 4
    assert server.seen[2].endswith(f"Received: {forged.decode()!r}\n")


def test_a_terminal_without_the_letters_does_not_stop_the_echo(start_server):
    server = start_server(PYTHONIOENCODING="ascii")
    with connect(server) as client_socket:
        echo(client_socket, "é 你".encode())
        echo(client_socket, b"\xff")
    assert expect(server, "Received: (.*)")[1] == r"'\xe9 \u4f60'"
    assert expect(server, "Received: (.*)")[1] == r"'\ufffd'"


def test_lines_of_many_threads_stay_whole(start_server):
    server = start_server(PYTHONUNBUFFERED="1")

    def talk():
        with connect(server) as client_socket:
            for _ in range(50):
                echo(client_socket, b"word")

    talkers = [threading.Thread(target=talk) for _ in range(20)]
    for thread in talkers:
        thread.start()
    for thread in talkers:
        thread.join(WAIT)
    for _ in talkers:
        expect(server, "Connection closed")
    whole = r"\[\S+\] (Server l.*|Accepted.*\)|Received: 'word'|Connection closed)\n"
    assert [line for line in server.seen if not re.fullmatch(whole, line)] == []


@posix
def test_it_goes_on_when_nobody_reads_its_output_any_more(start):
    server = start("server.py", "--port", 0, read=False)
    server.port = int(re.search(r"port (\d+)", server.stdout.readline())[1])
    server.stdout.close()
    with connect(server) as client_socket:
        echo(client_socket, b"one")
        echo(client_socket, b"two")


# server.py: what clients may do to it


def test_a_reset_costs_one_client_one_line(server):
    for number in range(20):
        client_socket = connect(server)
        if number % 2:
            client_socket.sendall(b"x" * 500_000)
        reset(client_socket)
        expect(server, "Connection lost: .*")
    with connect(server) as client_socket:
        echo(client_socket, b"next")
    expect(server, "Connection closed")
    assert sum("lost" in line for line in server.seen) == 20


def test_a_client_that_never_reads_waits_alone(server):
    with connect(server) as stuck, connect(server) as client_socket:
        fill(stuck)
        echo(client_socket, b"served")


@linux
def test_six_hundred_clients_leave_nothing_behind(server):
    def held():
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        descriptors = os.listdir(f"/proc/{server.pid}/fd")
        return len(descriptors), re.search(r"Threads:\s+(\d+)", status)[1]

    before = held()
    for number in range(600):
        client_socket = connect(server)
        if number % 3:
            echo(client_socket, b"x")
            client_socket.close()
        else:
            reset(client_socket)
    for _ in range(600):
        expect(server, "Connection (closed|lost)")
    deadline = time.monotonic() + WAIT
    while held() != before and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread ends a little after its last line
    assert held() == before


@linux
def test_out_of_descriptors_it_waits_for_a_client_to_leave(start_server):
    server = start_server(limits="ulimit -n 48")
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(90)]
        expect(server, "Cannot accept clients for now: .*Too many open files")

        def processor_time():
            fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().split()
            return int(fields[13]) + int(fields[14])  # user and system, see proc(5)

        before = processor_time()
        time.sleep(0.5)
        used = (processor_time() - before) / os.sysconf("SC_CLK_TCK")
        assert used < 0.05  # a tenth of a processor
        for client_socket in waiting[:30]:
            echo(client_socket, b"served")
            expect(server, "Received")
        assert sum("Cannot" in line for line in server.seen) == 1
        for client_socket in waiting[:30]:
            client_socket.close()
        expect(server, "Cannot accept")  # 60 are still too many
        for client_socket in waiting[30:]:
            echo(client_socket, b"served")
            client_socket.close()
    accepted = [line for line in server.seen if "Accepted" in line]
    assert len(accepted) == len(set(accepted))


@linux
def test_out_of_threads_it_turns_the_client_away(start_server):
    # Stacks of 1 GB within 3.5 GB of address space: there is room for few threads.
    server = start_server(limits="ulimit -s 1000000; ulimit -v 3500000")
    with connect(server) as served:
        echo(served, b"first")
        with contextlib.ExitStack() as stack:
            turned_away = [stack.enter_context(connect(server)) for _ in range(6)][-1]
            assert turned_away.recv(1) == b""
            expect(server, r"Connection from \(.*\) closed: can't start new thread")
            echo(served, b"as before")
    for _ in range(6):
        expect(server, "Connection (closed|lost)|closed: can't")
    stop(server)
    expect(server, "Stopping, 0 clients connected")


# server.py: Ctrl-C


@posix
def test_ctrl_c_ends_it_under_load_at_once_and_the_port_is_free(start, server):
    all_served = threading.Barrier(21)

    def talk():
        with contextlib.suppress(OSError), connect(server) as client_socket:
            echo(client_socket, b"x")
            all_served.wait(WAIT)
            data = b"x"
            while data:
                client_socket.sendall(data)
                data = client_socket.recv(100)

    talkers = [threading.Thread(target=talk) for _ in range(20)]
    with connect(server) as idle, connect(server) as stuck:
        echo(idle, b"x")
        fill(stuck)
        for thread in talkers:
            thread.start()
        all_served.wait(WAIT)
        pressed = time.monotonic()
        assert stop(server) == 0
        assert time.monotonic() - pressed < 2  # it takes 0.1 s
        assert idle.recv(1) == b""
        for thread in talkers:
            thread.join(WAIT)
        expect(server, r"\[MainThread\] Stopping, \d+ clients connected")
        again = start("server.py", "--port", server.port)
        expect(again, f"listening on port {server.port}")


@posix
def test_a_second_ctrl_c_ends_even_a_server_that_cannot_print(start):
    server = start("server.py", "--port", 0, read=False)
    server.port = int(re.search(r"port (\d+)", server.stdout.readline())[1])
    with connect(server) as client_socket:
        fill(client_socket)  # much more than the pipe holds that nobody reads
        deadline = time.monotonic() + WAIT
        while server.poll() is None and time.monotonic() < deadline:
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.2)
    assert server.returncode == -signal.SIGINT
    server.stdout.close()


# server.py: what a person may get wrong


def test_a_port_that_is_taken_is_said_and_left_in_peace(server):
    with connect(server) as client_socket:
        result = run("server.py", "--port", server.port)
        fails(result, f"localhost:{server.port}", "in use", "try another --port")
        echo(client_socket, b"undisturbed")


HOSTS = ["a..b", "a" * 300, "é" * 80, "no.such.host.invalid"]


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host[:4])
@pytest.mark.parametrize("script", ["server.py", "client.py", "multi_client.py"])
def test_a_host_that_cannot_be_is_said(script, host):
    fails(run(script, "--host", host, "--port", "8080"), host, "--host")


@pytest.mark.parametrize("script", ["server.py", "client.py", "multi_client.py"])
def test_a_port_that_cannot_be_is_said(script):
    fails(run(script, "--port", "65536"), "0-65535", "--port")
    result = run(script, "--port", "http")
    assert result.returncode == 2 and "invalid int value: 'http'" in result.stderr


@pytest.mark.parametrize("script", ["server.py", "client.py", "multi_client.py"])
def test_help_tells_what_it_is_and_where_it_is(script):
    result = run(script, "--help")
    assert result.returncode == 0
    for word in ["cho", "--host", "localhost", "--port", "8080"]:
        assert word in result.stdout


# client.py


def test_the_client_prints_what_comes_back(server):
    result = run("client.py", "--port", server.port)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "Server responded: 'Hello, Server!'\n"
    expect(server, "Received: 'Hello, Server!'")


@pytest.mark.parametrize("message", ["", "é 你 👋", "x" * 100_000, "a\nb"], ids=len)
def test_the_client_sends_any_message(server, message):
    result = run("client.py", "--port", server.port, message)
    assert result.stdout == f"Server responded: {message!r}\n"
    assert (result.returncode, result.stderr) == (0, "")


@posix
def test_the_client_sends_what_was_typed_and_shows_what_it_can(server):
    result = run("client.py", "--port", server.port, "\udcff", PYTHONIOENCODING="ascii")
    assert result.stdout == "Server responded: '\\ufffd'\n"
    assert (result.returncode, result.stderr) == (0, "")


def test_the_client_takes_the_answer_in_parts_and_shows_it_safely():
    def drip(number, connection, ended):
        receive(connection, 5)
        for byte in b"\x1b[2J\xff":
            connection.sendall(bytes([byte]))
            ended.wait(0.02)

    with fake_server(drip) as port:
        result = run("client.py", "--port", port, "12345")
    assert result.stdout == "Server responded: '\\x1b[2J\ufffd'\n"


def test_the_client_says_that_nobody_listens():
    fails(run("client.py", "--port", NOBODY), "Nobody", "start server.py first")


def test_the_client_says_how_much_came_before_the_end():
    def close_half_way(number, connection, ended):
        connection.sendall(receive(connection, 10)[:4])

    with fake_server(close_half_way) as port:
        fails(run("client.py", "--port", port, "1234567890"), "4 of 10 bytes", "check")


def test_the_client_says_that_it_was_reset():
    def hang_up(number, connection, ended):
        receive(connection, 5)
        reset(connection)

    with fake_server(hang_up) as port:
        fails(run("client.py", "--port", port, "12345"), "No echo", f":{port}", "reset")


def be_silent(number, connection, ended):
    ended.wait(WAIT)


def test_the_client_gives_up_on_a_silent_server():
    with fake_server(be_silent) as port:
        result = run("client.py", "--port", port, "--timeout", "0.2")
    fails(result, "timed out", "--timeout", "what the server printed")


@posix
@pytest.mark.parametrize("script", ["client.py", "multi_client.py"])
def test_ctrl_c_ends_a_waiting_client_quietly(start, script):
    connected = threading.Event()

    def wait(number, connection, ended):
        receive(connection, 1)
        connected.set()
        ended.wait(WAIT)

    with fake_server(wait) as port:
        client = start(script, "--port", port)
        assert connected.wait(WAIT)
        pressed = time.monotonic()
        assert stop(client) == -signal.SIGINT
        assert time.monotonic() - pressed < 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("script", ["client.py", "multi_client.py"])
def test_a_time_limit_that_is_none_is_said(script, value):
    result = run(script, "--port", NOBODY, f"--timeout={value}")
    assert result.returncode == 2 and "--timeout" in result.stderr


# multi_client.py


def test_many_clients_are_served_at_the_same_time(server):
    result = run("multi_client.py", "--port", server.port, "--delay", "0.05")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for number in range(1, 6):
        expect(server, "Connection closed")
    for number in range(1, 6):
        own = [line for line in lines if line.startswith(f"[Client {number}] ")]
        port = re.fullmatch(r"\[.*\] connected from port (\d+)", own[0])[1]
        assert [line.split("] ")[1] for line in own[1:]] == [
            f"message {count} came back" for count in (1, 2, 3)
        ]
        received = f"[127.0.0.1:{port}] Received: 'Client {number}, message 1'\n"
        assert received in server.seen
    together = lines.index(
        "[MainThread] All 5 clients were being served at the same time."
    )
    assert all("message 3" not in line for line in lines[:together])
    told = r"5 clients, 15 echoes, 0 errors, in (\S+) s; .* add up to (\S+) s\."
    took, added_up = re.search(told, lines[-1]).groups()
    assert 2 * 0.05 <= float(took) < 5 * 2 * 0.05 <= float(added_up)
    assert float(added_up) <= 5 * float(took) + 0.1  # nobody counts the wait for others


@pytest.mark.parametrize("number", [1, 100])
def test_any_number_of_clients_may_come(server, number):
    options = ["--port", server.port, "--clients", number, "--messages", 1]
    options += ["--delay", 60]  # there is nothing to wait for after the last message
    result = run("multi_client.py", *options, PYTHONUNBUFFERED="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{number} clients, {number} echoes, 0 errors" in result.stdout
    assert len(re.findall(r"(?m)^\[\S+( \d+)?\] [^\[]+$", result.stdout)) == (
        len(result.stdout.splitlines())
    )


def test_a_server_without_threads_is_found_out(start_server, tmp_path):
    source = (HERE / "server.py").read_text(encoding="utf-8")
    changed = source.replace("client_thread.start()", "client_thread.run()")
    assert changed != source
    (tmp_path / "server.py").write_text(changed, encoding="utf-8")
    server = start_server(script=tmp_path / "server.py")
    result = run("multi_client.py", "--port", server.port, "--timeout", "0.5")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "The server serves only 1 of 5 clients at a time." in result.stderr
    assert "same time" not in result.stdout


def test_many_clients_say_that_nobody_listens():
    result = run("multi_client.py", "--port", NOBODY, "--clients", 50)
    fails(result, "50 of 50 clients failed", "start server.py first")


def test_an_answer_to_somebody_else_is_noticed():
    def mix_up(number, connection, ended):
        for _ in range(3):
            message = receive(connection, 19)
            connection.sendall(message.replace(b"Client 2", b"Client 4"))

    with fake_server(mix_up) as port:
        result = run("multi_client.py", "--port", port, "--delay", 0)
    sent, received = "sent b'Client 2, message 1'", "received b'Client 4, message 1'"
    fails(result, "1 of 5 clients failed, first Client 2", sent, received)


@pytest.mark.parametrize("silent_before", [1, 2])
def test_resets_are_counted(silent_before):
    def reset_some(number, connection, ended):
        for count in (1, 2, 3):
            message = receive(connection, 19)
            if number % 2 == 0 and count == silent_before:
                reset(connection)
            connection.sendall(message)

    started = time.monotonic()
    with fake_server(reset_some) as port:
        result = run("multi_client.py", "--port", port, "--clients", 8, "--delay", 0.01)
    fails(result, "4 of 8 clients failed, first Client", "reset")
    assert time.monotonic() - started < 5  # the others did not wait for them


def test_closed_connections_are_counted():
    def close_some(number, connection, ended):
        for _ in range(3):
            message = receive(connection, 19)
            connection.sendall(message[: -(number % 2)] if number % 2 else message)
            if number % 2:
                break

    with fake_server(close_some) as port:
        result = run("multi_client.py", "--port", port, "--clients", 8, "--delay", 0)
    fails(result, "4 of 8 clients failed, first Client", "closed after 18 of 19 bytes")


def test_silence_towards_one_client_is_noticed():
    def ignore_client_three(number, connection, ended):
        for _ in range(3):
            message = receive(connection, 19)
            if message.startswith(b"Client 3"):
                ended.wait(WAIT)
            connection.sendall(message)

    with fake_server(ignore_client_three) as port:
        result = run("multi_client.py", "--port", port, "--timeout", "0.3")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "The server serves only 4 of 5 clients at a time." in result.stderr


def test_silence_later_on_is_noticed():
    def fall_silent(number, connection, ended):
        connection.sendall(receive(connection, 19))
        ended.wait(WAIT)

    with fake_server(fall_silent) as port:
        options = ["--timeout", 0.3, "--delay", 0]
        result = run("multi_client.py", "--port", port, *options)
    fails(result, "5 of 5 clients failed, first Client", "what the server printed")
    assert "All 5 clients were being served at the same time." in result.stdout


@linux
@pytest.mark.parametrize(
    "limits, lack",
    [
        ("ulimit -n 30", "Too many open files"),
        ("ulimit -s 1000000; ulimit -v 3500000", "can't start new thread"),
    ],
)
def test_a_lack_of_descriptors_or_threads_is_said(server, limits, lack):
    options = ["--port", server.port, "--clients", 60]
    fails(run("multi_client.py", *options, limits=limits), lack, "fewer --clients")


@pytest.mark.parametrize("option", ["--clients=0", "--messages=0", "--delay=-1"])
def test_a_number_that_is_too_small_is_said(option):
    result = run("multi_client.py", "--port", NOBODY, option)
    assert result.returncode == 2 and option.split("=")[0] in result.stderr


@posix
def test_many_clients_go_on_when_nobody_reads_their_output(start, server):
    options = ["--port", server.port, "--messages", 20, "--delay", 0.01]
    clients = start("multi_client.py", *options, read=False)
    assert "[Client" in clients.stdout.readline()
    clients.stdout.close()
    assert clients.wait(WAIT) == 0


# README.md


@posix
def test_the_readme_shows_what_the_programs_print(start_server):
    def general(text):
        return sorted(re.sub(r"\d\.\d\d s|\b\d{4,5}\b", "N", text).splitlines())

    def watch(script, clients):
        server = start_server()
        result = run(script, "--port", server.port)
        for _ in range(clients):
            expect(server, "Connection closed")
        stop(server)
        expect(server, "Stopping")
        return [general(result.stdout), general("".join(server.seen))]

    readme = (HERE / "README.md").read_text(encoding="utf-8")
    shown = [
        general(text) for text in re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    ]
    printed = watch("client.py", 1) + watch("multi_client.py", 5)
    assert shown[:3] == printed[:3]
    assert set(shown[3]) - {"..."} < set(printed[3])
