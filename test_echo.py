"""Tests of server.py, client.py and multi_client.py, run as a person would run them.

    python -m pytest

The tests start real processes, which talk over real sockets. The server takes a free
port (--port 0) and announces it. Where a test needs another server, it makes the edits
of a section of the README, or plays the server itself. Together they take 20 seconds.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE / "README.md").read_text(encoding="utf-8")
WAIT = 15  # seconds until anything that a test waits for counts as missing
QUIET = 0.3  # seconds in which a program that is not blocked gets on
SHIFT = 4  # columns by which an echo in a chart may be shifted on a busy computer

on_windows = os.name == "nt"
posix = pytest.mark.skipif(on_windows, reason="needs POSIX signals or resets")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's sockets")
limits = pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
each_client = pytest.mark.parametrize(
    "script, options",
    [("client.py", "--port"), ("multi_client.py", "--clients 1 --messages 1 --port")],
)
each_script = pytest.mark.parametrize(
    "script", ["server.py", "client.py", "multi_client.py"]
)

# The exit statuses of a script that Ctrl-C has killed (0 under Wine).
KILLED_BY_CTRL_C = [0xC000013A, 0] if on_windows else [-signal.SIGINT]
# On Windows, this program presses Ctrl-C in the console of another one.
PRESS_CTRL_C_ON_WINDOWS = """
import ctypes, sys
console = ctypes.windll.kernel32
console.FreeConsole()
console.AttachConsole(int(sys.argv[1]))
console.SetConsoleCtrlHandler(None, True)
console.GenerateConsoleCtrlEvent(0, 0)
"""

# This program runs a script with a sys.stdout that lacks reconfigure(), like IDLE's.
IDLE = """
import runpy, sys, types
window = types.SimpleNamespace(write=sys.stdout.write, flush=sys.stdout.flush)
sys.stdout = window
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Script:
    """A script that is running, or has exited, and what it has printed."""

    def __init__(self, command, folder):
        folder.mkdir()
        self.output_file = folder / "output.txt"
        self.error_file = folder / "errors.txt"
        output = self.output_file.open("wb")
        errors = self.error_file.open("wb")
        with output, errors:
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                # A console of its own, in which Ctrl-C does not reach the tests.
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )

    @property
    def printed(self):
        return self.output_file.read_text(encoding="utf-8")

    @property
    def errors(self):
        return self.error_file.read_text(encoding="utf-8")

    @property
    def port(self):
        self.wait_for("Server listening on port")
        everything = self.printed + self.errors  # logging prints among the errors
        announcement = re.search(r"port (\d+)", everything)
        return int(announcement[1])

    def wait_for(self, text, times=1):
        """Wait until the script has printed a text, perhaps several times."""
        deadline = time.monotonic() + WAIT
        while (self.printed + self.errors).count(text) < times:
            if time.monotonic() > deadline:
                pytest.fail(f"{text!r} is missing ({times} times) in: {self}")
            time.sleep(0.01)

    def press_ctrl_c(self):
        if on_windows:
            pid = str(self.process.pid)
            press = [sys.executable, "-c", PRESS_CTRL_C_ON_WINDOWS, pid]
            subprocess.run(press, timeout=WAIT, check=True)
        else:
            self.process.send_signal(signal.SIGINT)

    def wait(self):
        """Wait until the script has exited, and return its exit status."""
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not exit: {self}")

    def finish(self):
        """Wait until the script has succeeded, and return what it printed."""
        assert self.wait() == 0, self
        assert self.errors == "", self
        return self.printed

    def fail(self, status=1):
        """Wait until the script has failed, and return its one line of error."""
        assert self.wait() == status, self
        lines = self.errors.splitlines()
        assert len(lines) == 1 or self.errors.startswith("usage: "), self
        return lines[-1]

    def __repr__(self):
        end = self.printed[-2000:]
        return f"\n{self.process.args}\nprinted:\n{end}\nerrors:\n{self.errors}"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Give a function that starts a script; all are killed when the test ends."""
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides a missing flush
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # warns of a socket that is not closed
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("COLUMNS", "80")  # the width of --help
    scripts = []

    def start_script(name, *options, prefix=()):
        command = [*prefix, sys.executable, str(name)]
        for option in options:
            command += str(option).split(" ")  # "--port 0" is two words
        script = Script(command, tmp_path / f"run_{len(scripts)}")
        scripts.append(script)
        return script

    yield start_script
    for script in scripts:
        script.process.kill()
        script.process.wait(WAIT)
        script.process.stdin.close()


@pytest.fixture
def server(start):
    """Give a server.py that is listening."""
    server = start("server.py", "--port 0")
    server.wait_for("Server listening on port")
    return server


@pytest.fixture
def connect():
    """Give a function that connects to a server; close all sockets at the end."""
    with contextlib.ExitStack() as sockets:

        def connect_to(server):
            address = ("127.0.0.1", server.port)
            client_socket = socket.create_connection(address, timeout=WAIT)
            return sockets.enter_context(client_socket)

        yield connect_to


@pytest.fixture
def listener():
    """Give a listening socket, for tests that play the server themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT)
        yield listener


def section(title):
    """Return the section of the README whose title begins with `title`."""
    from_title = README.split(f"# {title}")[1]
    return from_title.split("\n#")[0]


def blocks(language, text):
    """Return the code blocks of a language in a part of the README."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def edited(tmp_path):
    """Give a function that makes the edits of a section of the README in a copy."""

    def edit(title):
        text = section(title)
        name = re.search(r"`(\w+\.py)`", text)[1]
        source = (HERE / name).read_text(encoding="utf-8")
        diffs = blocks("diff", text)
        assert diffs, f"no edits in the section {title}"
        for diff in diffs:
            old = ""
            new = ""
            for line in diff.splitlines(keepends=True):
                if not line.startswith("+"):
                    old += line[1:]
                if not line.startswith("-"):
                    new += line[1:]
            assert source.count(old) == 1, f"not exactly once in {name}:\n{old}"
            source = source.replace(old, new)
        copy = tmp_path / name
        copy.write_text(source, encoding="utf-8")
        return copy

    return edit


@pytest.fixture
def start_edited(start, edited):
    """Give a function that starts a server.py with the edits of a section."""
    return lambda title: start(edited(title), "--port 0")


def echo(client_socket, message):
    """Send a message and return its echo, or as much of it as arrives."""
    client_socket.sendall(message)
    with client_socket.makefile("rb") as file:
        return file.read(len(message))


def fill(client_socket):
    """Send without reading until the server is blocked; return what was sent."""
    data = b"0123456789" * 10_000
    sent = bytearray()
    client_socket.settimeout(QUIET)
    with contextlib.suppress(socket.timeout):
        while True:
            size = client_socket.send(data)
            sent += data[:size]
    client_socket.settimeout(WAIT)
    return sent


def rows(text):
    """Return the rows of a chart, without the names of the clients."""
    return re.findall(r"^Client \d+ +(\S+)$", text, re.MULTILINE)


def assert_same_chart(printed, shown):
    """Check that two charts, and the lines below them, say the same."""
    rows_printed = rows(printed)
    rows_shown = rows(shown)
    assert len(rows_printed) > 0, printed
    assert len(rows_printed) == len(rows_shown), printed
    for row, row_shown in zip(rows_printed, rows_shown):
        columns = pytest.approx(echo_columns(row_shown), abs=SHIFT)
        assert echo_columns(row) == columns, printed
    assert below_chart(printed) == below_chart(shown)


def echo_columns(row):
    """Return in which columns of a row there is an echo."""
    return [column for column, mark in enumerate(row) if mark == "o"]


def below_chart(text):
    """Return the lines below a chart, without how long the run took."""
    lines = text.split("\n. waiting")[1]
    return re.sub(r"seconds: \d+\.\d", "seconds: N", lines)


# The guide's scenario, and what the README shows


def test_server_echoes_a_message_and_logs_each_step(server):
    client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client_socket.connect(("localhost", server.port))
    client_socket.sendall(b"Hello, Server!")
    response = client_socket.recv(1024)
    addr = client_socket.getsockname()
    client_socket.close()

    assert response == b"Hello, Server!"
    thread = f"{addr[0]}:{addr[1]}"
    server.wait_for(f"[{thread}] Connection closed\n")
    expected = f"""\
[MainThread] Server listening on port {server.port}... (Ctrl-C to stop)
[MainThread] Accepted connection from {addr}
[{thread}] Received 14 bytes: 'Hello, Server!'
[{thread}] Connection closed
"""
    assert server.printed == expected


def test_readme_shows_what_client_and_server_print(start, server):
    client = start("client.py", "--port", server.port)
    client.wait()
    server.wait_for("Connection closed")
    server.press_ctrl_c()
    server.wait()

    shown_client, shown_server = blocks("text", section("Run it"))
    assert client.printed == shown_client
    assert without_ports(server.printed) == without_ports(shown_server)


def without_ports(text):
    return re.sub(r"\b\d{4,5}\b", "N", text)


def test_readme_shows_the_chart_with_threads(start, server):
    clients = start("multi_client.py", "--port", server.port)

    charts = blocks("text", section("A threaded"))
    assert_same_chart(clients.finish(), charts[1])


def test_experiment_1_shows_the_chart_without_threads(start, start_edited):
    server = start_edited("1. ")
    clients = start("multi_client.py", "--port", server.port)

    charts = blocks("text", section("A threaded"))
    assert_same_chart(clients.finish(), charts[0])
    for line in server.printed.splitlines():
        assert line.startswith("[MainThread] ")


def test_experiment_2_makes_the_fifth_client_wait_for_a_thread(start, start_edited):
    server = start_edited("2. ")
    clients = start("multi_client.py", "--port", server.port)

    (chart,) = blocks("text", section("2. "))
    assert_same_chart(clients.finish(), chart)


@linux
def test_experiment_3_leaves_no_room_in_the_queue(connect, start_edited):
    server = start_edited("3. ")
    address = ("127.0.0.1", server.port)
    server.process.send_signal(signal.SIGSTOP)  # so it accepts no client
    connect(server)
    connect(server)

    with pytest.raises(socket.timeout):
        socket.create_connection(address, timeout=QUIET)


def test_experiment_4_receives_one_byte_at_a_time(start, start_edited):
    server = start_edited("4. ")
    client = start("client.py", "--port", server.port, "é")

    assert client.finish() == "Server responded: 'é'\n"
    server.wait_for("Received 1 bytes: '\ufffd'\n", times=2)


def test_experiment_5_ends_one_thread_but_not_the_server(start, start_edited):
    server = start_edited("5. ")
    unlucky = start("client.py", "--port", server.port, "é")
    error = unlucky.fail()
    lucky = start("client.py", "--port", server.port, "Hi")

    assert re.search("reset|closed after 1 of 2|10054", error)
    server.wait_for("UnicodeDecodeError")
    assert lucky.finish() == "Server responded: 'Hi'\n"


def test_experiment_6_leaves_bytes_unsent(start, server, edited):
    client = start(edited("6. "), "--port", server.port)
    server.wait_for("Received")
    time.sleep(QUIET)  # enough for the echo of all that was sent
    server.press_ctrl_c()

    client.fail()  # without the Ctrl-C, it would wait ten seconds for the rest
    assert 0 < int(client.printed) < 20_000_000


def test_experiment_7_stops_with_clients_connected(start, start_edited):
    server = start_edited("7. ")
    start("multi_client.py", "--delay 0 --messages 100000 --port", server.port)
    server.wait_for("Accepted", times=5)
    server.wait_for("Received", times=100)
    server.press_ctrl_c()

    server.wait()  # with any status: Python may abort, as the answer says
    assert "Stopping, clients connected: 5\n" in server.printed


def test_logging_prints_the_same_lines(connect, start_edited):
    server = start_edited("Logging")
    client_socket = connect(server)
    echo(client_socket, b"Hi")
    host, port = client_socket.getsockname()

    server.wait_for(f"[MainThread] Accepted connection from ('{host}', {port})\n")
    server.wait_for(f"[{host}:{port}] Received 2 bytes: 'Hi'\n")


def test_commands_are_carried_out_and_other_lines_echoed(connect, start_edited):
    server = start_edited("Commands")
    connect(server)  # and stays idle, which must not keep the server from stopping
    client_socket = connect(server)
    client_socket.sendall(b"first\nsec")
    server.wait_for("Received 5 bytes: 'first'\n")
    client_socket.sendall(b"ond\n/time\n/quit\n")
    with client_socket.makefile("rb") as file:
        first, second, now = file.readlines()  # until the server closes the connection

    assert first + second == b"first\nsecond\n"
    time.strptime(now.decode().strip())  # raises ValueError if this is no time
    server.press_ctrl_c()
    server.finish()


def test_chat_sends_a_line_to_every_client(start, start_edited, tmp_path):
    server = start_edited("Chat")
    (source,) = blocks("python", section("Chat"))
    chat_client = tmp_path / "chat_client.py"
    source = source.replace("8080", str(server.port))
    chat_client.write_text(source, encoding="utf-8")
    first = start(chat_client)
    second = start(chat_client)
    server.wait_for("Accepted", times=2)
    first.process.stdin.write("Hi, é\n".encode())
    first.process.stdin.flush()

    first.wait_for("'Hi, é\\n'\n")
    second.wait_for("'Hi, é\\n'\n")
    server.press_ctrl_c()
    assert first.finish().endswith("The server has closed the connection\n")


def test_readme_quotes_the_core_of_server_py():
    (core,) = blocks("python", section("The core"))
    source = (HERE / "server.py").read_text(encoding="utf-8")
    remaining = source.splitlines()
    assert "accept()" in core
    for line in core.splitlines():
        assert line in remaining, "not in server.py, or not in this order"
        position = remaining.index(line)
        remaining = remaining[position:]


# server.py


def test_every_byte_is_echoed(server, connect):
    message = bytes(range(256)) * 400
    assert echo(connect(server), message) == message


def test_long_message_is_truncated_in_the_log(server, connect):
    echo(connect(server), b"x" * 1000)
    server.wait_for(f"Received 1000 bytes: '{'x' * 60}'\n")


def test_end_of_a_long_message_is_not_held_back(server, connect):
    client_socket = connect(server)
    times = []
    for _ in range(21):
        started = time.perf_counter()
        assert len(echo(client_socket, b"x" * 40_000)) == 40_000
        times.append(time.perf_counter() - started)

    assert statistics.median(times) < 0.02  # 0.04 if held back, 0.0003 if not


@pytest.mark.parametrize(
    "encoding, shown", [("utf-8", "'é 你'"), ("ascii", r"'\xe9 \u4f60'")]
)
def test_letters_are_printed_in_any_terminal(start, monkeypatch, encoding, shown):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    server = start("server.py", "--port 0")
    client = start("client.py", "--port", server.port, "é 你")

    assert client.finish() == f"Server responded: {shown}\n"
    server.wait_for(f" bytes: {shown}\n")


def test_control_codes_are_escaped(start, server):
    client = start("client.py", "--port", server.port, "\r\n[MainThread] \x1b[2J")
    escaped = r"'\r\n[MainThread] \x1b[2J'"

    assert client.finish() == f"Server responded: {escaped}\n"
    server.wait_for(f" bytes: {escaped}\n")


def test_lines_of_many_threads_do_not_mix(start, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # writes a line in two pieces
    server = start("server.py", "--port 0")
    many = "--clients 60 --messages 20 --delay 0 --port"
    start("multi_client.py", many, server.port).finish()

    server.wait_for("Connection closed\n", times=60)
    for line in server.printed.splitlines():
        assert line.startswith("[")
        assert line.count("[") == 1


@posix
def test_a_hundred_clients_can_queue_and_stay_idle(server, connect):
    server.process.send_signal(signal.SIGSTOP)  # so it accepts no client
    queue = [connect(server) for _ in range(100)]
    server.process.send_signal(signal.SIGCONT)
    assert echo(connect(server), b"active") == b"active"
    time.sleep(QUIET)  # several times as long as accept() blocks

    for client_socket in queue:
        assert echo(client_socket, b"idle until now") == b"idle until now"


def test_slow_reader_gets_everything_and_delays_nobody_else(server, connect):
    slow = connect(server)
    sent = fill(slow)
    assert echo(connect(server), b"served") == b"served"

    slow.shutdown(socket.SHUT_WR)
    with slow.makefile("rb") as file:
        same = file.read() == sent  # compared here, or pytest would print megabytes
    assert same


def test_reset_connection_costs_one_log_line(server, connect):
    client_socket = connect(server)
    client_socket.sendall(b"x" * 500_000)
    client_socket.close()  # with unread bytes, which resets the connection

    server.wait_for("] Connection lost: ")
    assert echo(connect(server), b"next") == b"next"
    assert server.printed.count("Connection lost") == 1
    assert server.errors == ""


@limits
def test_without_free_file_descriptors_clients_wait_for_others(start, connect):
    server = start("server.py", "--port 0", prefix=["prlimit", "--nofile=48"])
    queue = [connect(server) for _ in range(90)]
    server.wait_for("Cannot accept clients for now: [Errno 24] Too many open files")

    for client_socket in queue:
        assert echo(client_socket, b"served") == b"served"
        client_socket.close()
    assert server.printed.count("Cannot accept") < 100  # because it pauses after each


@limits
def test_without_free_threads_a_client_is_disconnected(server, connect):
    early = connect(server)
    assert echo(early, b"served") == b"served"
    pid = server.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    size = re.search(r"VmSize:\s*(\d+)", status)
    kilobytes = int(size[1])
    limit = (kilobytes + 1000) * 1024  # bytes of memory, too few for another thread
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={limit}"], check=True)

    assert connect(server).recv(1) == b""
    server.wait_for("closed: can't start new thread")
    assert echo(early, b"served") == b"served"
    server.press_ctrl_c()
    assert "Stopping, clients connected: 1\n" in server.finish()


@posix
def test_server_goes_on_when_its_output_is_closed(start):
    command = [sys.executable, str(HERE / "server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = re.search(r"port (\d+)", process.stdout.readline())[1]
        process.stdout.close()
        try:
            start("client.py", "--port", port).finish()
            start("client.py", "--port", port).finish()
            process.send_signal(signal.SIGINT)

            assert process.wait(WAIT) == 0
        finally:
            process.kill()


def test_scripts_run_in_idle(start, tmp_path):
    idle = tmp_path / "idle.py"
    idle.write_text(IDLE, encoding="utf-8")
    server = start(idle, "server.py --port 0")

    start(idle, "client.py --port", server.port).finish()
    start(idle, "multi_client.py --delay 0 --port", server.port).finish()


def test_port_that_is_in_use_is_reported(start, server, connect):
    error = start("server.py", "--port", server.port).fail()
    assert error.startswith(f"Cannot listen on localhost:{server.port}: ")
    assert echo(connect(server), b"undisturbed") == b"undisturbed"


def test_ctrl_c_disconnects_all_clients_and_counts_them(server, connect):
    gone = connect(server)
    idle = [connect(server) for _ in range(10)]
    gone.close()
    server.wait_for("Connection closed")
    server.wait_for("Accepted", times=11)
    server.press_ctrl_c()

    after = server.finish().split("\n[MainThread] Stopping, ")[1]
    assert after.startswith("clients connected: 10\n")
    assert after.count("] Connection ") == 10  # every thread has finished
    for client_socket in idle:
        assert client_socket.recv(1) == b""


@posix
def test_ctrl_c_stops_a_server_whose_client_never_reads(server, connect):
    fill(connect(server))
    server.press_ctrl_c()
    assert "] Connection lost: " in server.finish()


def test_ctrl_c_stops_a_busy_server_and_frees_its_port(start, server):
    port = server.port
    start("multi_client.py", "--clients 3000 --delay 0 --port", port)
    server.wait_for("Connection closed", times=300)
    server.press_ctrl_c()
    server.finish()

    next_server = start("server.py", "--port", port)
    next_server.wait_for(f"listening on port {port}...")


@posix
def test_second_ctrl_c_kills_server_that_cannot_stop(connect, start_edited):
    server = start_edited("1. ")
    echo(connect(server), b"without threads, this client keeps the main thread")
    server.press_ctrl_c()
    time.sleep(QUIET)  # several times as long as accept() blocks
    assert server.process.poll() is None

    server.press_ctrl_c()
    assert server.wait() in KILLED_BY_CTRL_C


@linux
def test_host_is_where_the_server_listens(start):
    server = start("server.py", "--host 127.0.0.2 --port 0")
    start("client.py", "--host 127.0.0.2 --port", server.port).finish()
    start("multi_client.py", "--host 127.0.0.2 --port", server.port).finish()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)


# client.py and multi_client.py


def play_server(start, script, options, listener):
    """Start a client of a listening socket; return it and its connection."""
    port = listener.getsockname()[1]
    client = start(script, options, port)
    connection, _ = listener.accept()
    connection.settimeout(WAIT)
    return client, connection


@each_client
def test_echo_that_arrives_in_pieces_is_put_together(start, listener, script, options):
    client, connection = play_server(start, script, options, listener)
    with connection:
        message = connection.recv(1024)
        connection.sendall(message[:5])
        time.sleep(QUIET)  # so that the client receives this piece alone
        connection.sendall(message[5:])

        printed = client.finish()
        assert "'Hello, Server!'" in printed or "failures: 0" in printed


@each_client
def test_connection_that_is_closed_early_is_reported(start, listener, script, options):
    client, connection = play_server(start, script, options, listener)
    with connection:
        connection.recv(1024)
        connection.sendall(b"Hello")

    assert "closed after 5 of" in client.fail()


def test_client_shows_an_echo_that_is_not_text(start, listener):
    client, connection = play_server(start, "client.py", "--port", listener)
    with connection:
        connection.sendall(b"\xff" * 14)  # as many bytes as in Hello, Server!

        shown = "\ufffd" * 14
        assert client.finish() == f"Server responded: '{shown}'\n"


def test_client_gives_up_on_a_silent_server(start, listener, tmp_path):
    source = (HERE / "client.py").read_text(encoding="utf-8")
    impatient = tmp_path / "client.py"
    assert source.count("TIMEOUT = 10 ") == 1
    source = source.replace("TIMEOUT = 10 ", "TIMEOUT = 0.3 ")
    impatient.write_text(source, encoding="utf-8")
    client = start(impatient, "--port", listener.getsockname()[1])

    assert "timed out" in client.fail()


@each_client
def test_ctrl_c_ends_a_waiting_client_quietly(start, listener, script, options):
    client, connection = play_server(start, script, options, listener)
    with connection:
        connection.recv(1024)
        if script == "multi_client.py":
            client.wait_for("Starting clients: 1\n")
        client.press_ctrl_c()

        assert client.wait() in KILLED_BY_CTRL_C
        assert client.errors == ""


def test_several_words_are_one_message(start, server):
    client = start("client.py", "--port", server.port, "Hello dear server")
    assert client.finish() == "Server responded: 'Hello dear server'\n"


@posix
def test_message_that_cannot_be_encoded_is_reported(start):
    error = start("client.py", "\udcff").fail()  # a byte that is no text
    assert error.startswith("Cannot encode the message: ")


def test_client_that_receives_the_echo_of_another_fails_alone(start, listener):
    port = listener.getsockname()[1]
    clients = start("multi_client.py", "--messages 1 --port", port)
    for _ in range(5):
        connection, _ = listener.accept()
        with connection:
            message = connection.recv(1024)
            connection.sendall(message.replace(b"Client 2", b"Client 4"))

    sent_and_received = "sent b'Client 2, message 1', received b'Client 4, message 1'"
    error = clients.fail()
    assert error.startswith(f"Failed: 1 of 5. First, Client 2: {sent_and_received}")
    assert "\nEchoes: 4, failures: 1, " in clients.printed


def test_client_that_waits_in_vain_is_drawn_last_and_to_the_end(start, listener):
    port = listener.getsockname()[1]
    options = "--clients 18 --messages 1 --timeout 1 --port"
    clients = start("multi_client.py", options, port)
    silent, _ = listener.accept()
    for _ in range(17):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(1024))
    with silent:
        message = silent.recv(1024).decode()
        name = message.split(",")[0]
        error = clients.fail()

    assert error.startswith(f"Failed: 1 of 18. First, {name}: timed out")
    assert "\n(one client in 2 is drawn)\n" in clients.printed
    chart = clients.printed.split("\n. waiting")[0]
    last_row = chart.splitlines()[-1]
    assert last_row.startswith(name)
    assert re.search(r" \.{11,25}$", last_row), "not dots for one second or little more"


def test_chart_of_many_clients_fits_the_terminal(start, server):
    options = "--clients 129 --delay 0.1 --port"
    clients = start("multi_client.py", options, server.port)
    printed = clients.finish()

    assert len(rows(printed)) == 15
    assert "\n(one client in 9 is drawn)\n" in printed
    lines = printed.splitlines()
    assert len(lines) <= 22
    for line in lines:
        assert len(line) < 80
    for name in re.findall(r"^Client \d+ +", printed, re.MULTILINE):
        assert len(name) == 14, "the rows are not aligned"


def call(expression):
    """Run an expression with multi_client.py's functions; return what it prints."""
    code = f"from multi_client import *; {expression}"
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, cwd=HERE, timeout=WAIT, text=True)


def test_chart_of_a_long_run_has_longer_columns():
    chart = call("draw({'Client 1': [0, 32, 63.9]}, 64)")
    assert f"Client 1      o{'-' * 31}o{'-' * 30}o\n" in chart
    assert "one column: 1 seconds\n" in chart


def test_chart_is_in_the_order_of_the_first_echoes():
    chart = call("draw({'Client 1': [0.35, 0.55], 'Client 2': [0.15]}, 1)")
    assert chart.startswith("Client 2      .o\nClient 1      ...o-o\n")


def test_clients_are_counted_from_their_first_to_their_last_echo():
    times = {"A": [0, 8, 9], "B": [1, 2], "C": [3, 6], "D": [4, 5]}
    most = call(f"print(most_at_once({times}))")
    assert most == "3\n"


def test_single_echoes_are_not_counted_as_simultaneous(start, server):
    clients = start("multi_client.py", "--messages 1 --port", server.port)
    printed = clients.finish()

    assert "\nEchoes: 5, failures: 0, " in printed
    assert "at the same time" not in printed


@limits
@pytest.mark.parametrize(
    "limit, lack",
    [
        ("--nofile=48", "Too many open files"),
        ("--as=600000000", "can't start new thread"),  # bytes of memory
    ],
)
def test_shortage_costs_only_the_clients_it_hits(start, server, limit, lack):
    options = "--clients 200 --delay 0.1 --port"
    prefix = ["prlimit", limit]
    clients = start("multi_client.py", options, server.port, prefix=prefix)

    error = clients.fail()
    assert lack in error
    assert error.endswith("try fewer --clients)")
    failed = int(re.search(r"Failed: (\d+) of 200", error)[1])
    assert f"\nEchoes: {3 * (200 - failed)}, failures: {failed}, " in clients.printed
    assert failed < 200


# Options


@each_script
def test_help_shows_every_option_with_its_default(start, script):
    text = start(script, "--help").finish()
    options = re.findall(r"^  (?:--|message).*", text, re.MULTILINE)

    assert len(options) >= 2
    assert "(default: 8080)" in text
    for option in options:
        assert re.search(r"  \w.* \(default: .+\)$", option), option


MISTAKES = [  # script, options, exit status, error
    ("server.py", "--port 65536", 1, "port must be 0-65535. (use another"),
    ("client.py", "--port 65536", 1, "port must be 0-65535. (check"),
    ("multi_client.py", "--port 65536", 1, "port must be 0-65535. (check"),
    ("server.py", "--host ::1", 1, "Cannot listen on ::1:8080: "),
    ("client.py", "--host ::1", 1, "No echo from ::1:8080: "),
    ("multi_client.py", "--host ::1", 1, "Cannot find ::1: "),
    ("server.py", "--host é..b", 1, "Cannot listen on é..b:8080: "),
    ("client.py", "--host é..b", 1, "No echo from é..b:8080: "),
    ("multi_client.py", "--host é..b", 1, "Cannot find é..b: "),
    ("client.py", "--port 1", 1, "Nothing is listening on localhost:1 (start"),
    ("multi_client.py", "--port 1", 1, "nothing is listening on localhost:1 ("),
    ("multi_client.py", "--clients 0", 2, "--clients must be from 1 to 65535"),
    ("multi_client.py", "--clients 65536", 2, "--clients must be from 1 to 65535"),
    ("multi_client.py", "--messages 0", 2, "--messages must be at least 1"),
    ("multi_client.py", "--delay nan", 2, "--delay must be from 0 to 86400"),
    ("multi_client.py", "--delay inf", 2, "--delay must be from 0 to 86400"),
    ("multi_client.py", "--timeout 0", 2, "--timeout must be more than 0"),
    ("multi_client.py", "--timeout inf", 2, "--timeout must be more than 0"),
]


@pytest.mark.parametrize("script, options, status, error", MISTAKES)
def test_mistake_on_the_command_line_is_reported(start, script, options, status, error):
    assert error in start(script, options).fail(status)
