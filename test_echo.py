"""Tests of server.py, client.py and multi_client.py, and of the code in README.md.

    python -m pytest

They start the scripts as processes, with real sockets between them, on free ports.
"""

import contextlib
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
WAIT = 15  # seconds after which a test gives up waiting


class Script(subprocess.Popen):
    """A script that is running, or has exited. What it prints goes into a file."""

    def __init__(self, command, output_file):
        self.output_file = output_file
        with output_file.open("wb") as file:
            super().__init__(
                command,
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def printed(self):
        return self.output_file.read_text(encoding="utf-8")

    def port(self):
        self.wait_for("listening on port")
        return int(re.search(r"listening on port (\d+)", self.printed())[1])

    def wait_for(self, text, times=1):
        """Wait until the script has printed the text at least `times` times."""
        deadline = time.monotonic() + WAIT
        while self.printed().count(text) < times:
            assert time.monotonic() < deadline, f"not printed {times} times: {text!r}"
            time.sleep(0.01)

    def wait_for_exit(self, status=0):
        """Wait until the script has exited with this status; return what it printed."""
        assert self.wait(WAIT) == status  # -2: signal 2 (Ctrl-C)
        return self.printed()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Provide a function that starts a script; kill all scripts at the end."""
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # warns about unclosed sockets
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # would hide a missing flush
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # would keep -c from importing
    scripts = []

    def start_script(name, *options, prefix=()):
        command = [*prefix, sys.executable, name, *[str(option) for option in options]]
        script = Script(command, tmp_path / f"output_{len(scripts)}.txt")
        scripts.append(script)
        return script

    yield start_script
    for script in scripts:
        script.kill()
        script.communicate()  # waits, and closes the pipe to its stdin
        print(script.args, script.printed(), sep="\n")  # shown if the test fails


@pytest.fixture
def server(start):
    """Provide a server.py that is running on a free port."""
    return start("server.py", "--port", 0)


def echo(client_socket, message):
    """Send a message and return its echo."""
    client_socket.sendall(message)
    with client_socket.makefile("rb") as reader:
        return reader.read(len(message))


def test_server_echoes_a_message_and_logs_each_step(server):
    with socket.create_connection(("127.0.0.1", server.port()), WAIT) as client_socket:
        addr = client_socket.getsockname()
        assert echo(client_socket, b"Hello, Server!") == b"Hello, Server!"
    server.wait_for("Connection closed\n")
    thread = f"{addr[0]}:{addr[1]}"
    assert server.printed() == (
        f"[MainThread] Server listening on port {server.port()}...\n"
        f"[MainThread] Accepted connection from {addr}\n"
        f"[{thread}] Received 14 bytes: 'Hello, Server!'\n"
        f"[{thread}] Connection closed\n"
    )


@pytest.fixture
def connect():
    """Provide a function that connects to a server; close all sockets at the end."""
    with contextlib.ExitStack() as sockets:

        def connect_to(server):
            address = ("127.0.0.1", server.port())
            return sockets.enter_context(socket.create_connection(address, WAIT))

        yield connect_to


def test_every_byte_is_echoed(server, connect):
    message = bytes(range(256)) * 400  # takes several calls of recv()
    assert echo(connect(server), message) == message


def test_line_breaks_and_control_codes_are_escaped(server, connect):
    echo(connect(server), b"\r\n\x1b[2J")
    server.wait_for("Received 6 bytes: '\\r\\n\\x1b[2J'\n")


def test_letters_that_the_terminal_lacks_are_escaped(start, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    server = start("server.py", "--port", 0)
    client = start("client.py", "--port", server.port(), "dear", "é")
    assert client.wait_for_exit() == "Server responded: 'dear \\xe9'\n"
    server.wait_for("Received 7 bytes: 'dear \\xe9'\n")


def test_long_text_is_truncated(server, connect):
    echo(connect(server), ("x" + "😀" * 1000).encode())
    server.wait_for(f"Received 4001 bytes: 'x{'😀' * 59}'\n")


def test_end_of_a_long_echo_is_not_held_back(server, connect):
    client_socket = connect(server)
    durations = []
    for _ in range(20):
        started = time.perf_counter()
        echo(client_socket, b"x" * 40_000)
        durations.append(time.perf_counter() - started)
    assert statistics.median(durations) < 0.02  # with Nagle's algorithm: 0.04 (Linux)


def test_client_that_never_reads_delays_nobody_else(server, connect):
    blocked = connect(server)
    blocked.settimeout(0.3)
    with pytest.raises(socket.timeout):  # TimeoutError since Python 3.10
        blocked.sendall(b"x" * 100_000_000)  # blocks when all buffers are full
    assert echo(connect(server), b"served") == b"served"


def test_reset_connection_costs_one_log_line(server, connect):
    client_socket = connect(server)
    client_socket.sendall(b"x" * 100_000)
    client_socket.close()  # with unread bytes, which resets the connection
    server.wait_for("] Connection lost: ")
    assert echo(connect(server), b"next") == b"next"
    assert server.printed().count("Connection lost") == 1


def test_lines_from_many_threads_do_not_mix(start, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # print() writes a line in two pieces
    server = start("server.py", "--port", 0)
    many = ["--clients", 60, "--messages", 20, "--delay", 0]
    start("multi_client.py", *many, "--port", server.port()).wait_for_exit()
    server.wait_for("Connection closed\n", times=60)
    for line in server.printed().splitlines():
        assert line.startswith("["), line
        assert line.count("[") == 1


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
posix_64 = pytest.mark.skipif(
    sys.platform == "win32" or sys.maxsize < 2**50, reason="needs 64-bit POSIX"
)
prlimit = pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")


@prlimit
def test_full_disk_does_not_stop_the_server(start, connect):
    server = start("server.py", "--port", 0, prefix=["prlimit", "--fsize=60"])
    connect(server).close()
    assert echo(connect(server), b"served") == b"served"  # despite the 60-byte limit


@prlimit
def test_clients_wait_when_file_descriptors_run_out(start, connect):
    server = start("server.py", "--port", 0, prefix=["prlimit", "--nofile=48"])
    clients = [connect(server) for _ in range(90)]  # more than 48 file descriptors
    server.wait_for("Cannot accept clients for now: [Errno 24] Too many open files")
    for client_socket in clients:
        assert echo(client_socket, b"served") == b"served"
        client_socket.close()
    assert server.printed().count("Accepted connection") == 90
    assert server.printed().count("Cannot accept") < 100  # the server pauses each time


def test_port_that_is_in_use_is_reported(start, server):
    second = start("server.py", "--port", server.port())
    error = f"Cannot listen on localhost:{server.port()}: "
    assert error in second.wait_for_exit(status=1)


@posix_64
def test_client_whose_thread_cannot_start_is_disconnected(start, connect):
    code = "import server, threading; threading.stack_size(2**50); server.main()"
    server = start("-c", code, "--port", 0)
    assert connect(server).recv(1024) == b""
    server.wait_for(" closed: can't start new thread\n")


@posix
def test_ctrl_c_stops_a_busy_server_and_frees_its_port(start, server, connect):
    connect(server)  # an idle client
    start("multi_client.py", "--clients", 500, "--delay", 0, "--port", server.port())
    server.wait_for("Connection closed", times=50)
    server.send_signal(signal.SIGINT)
    assert "Traceback" not in server.wait_for_exit(-signal.SIGINT)
    start("server.py", "--port", server.port()).wait_for("listening on port")


# The clients


@contextlib.contextmanager
def act_as_server(start, *command):
    """Start a client, and accept it; provide the script and the connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        server_socket.settimeout(WAIT)
        script = start(*command, "--port", server_socket.getsockname()[1])
        connection, _ = server_socket.accept()
        with connection:
            connection.settimeout(WAIT)
            yield script, connection


def test_echo_in_pieces_is_put_together(start):
    with act_as_server(start, "client.py") as (client, connection):
        message = connection.recv(1024)
        connection.sendall(message[:5])
        time.sleep(0.2)  # so that the client receives these bytes alone
        connection.sendall(message[5:])
        assert client.wait_for_exit() == "Server responded: 'Hello, Server!'\n"


def test_connection_closed_early_is_reported(start):
    with act_as_server(start, "client.py") as (client, connection):
        connection.recv(1024)
        connection.sendall(b"Hello")
    assert "5 of 14 bytes\nIs server.py running there?\n" in client.wait_for_exit(1)


@posix
@pytest.mark.parametrize("name", ["client.py", "multi_client.py"])
def test_ctrl_c_stops_a_waiting_client_quietly(start, name):
    with act_as_server(start, name) as (client, connection):
        connection.recv(1024)
        client.send_signal(signal.SIGINT)
        assert "Traceback" not in client.wait_for_exit(-signal.SIGINT)


@pytest.mark.parametrize("name", ["client", "multi_client"])
def test_client_gives_up_on_a_silent_server(start, name):
    code = f"import {name}; {name}.TIMEOUT = 0.3; {name}.main()"
    with act_as_server(start, "-c", code) as (client, _):
        assert "timed out" in client.wait_for_exit(status=1)


def test_client_shows_an_echo_that_is_not_text(start):
    with act_as_server(start, "client.py") as (client, connection):
        connection.sendall(b"Hello, \xff\n\x1bver!")  # as long as the message
        printed = client.wait_for_exit()
    assert printed == "Server responded: 'Hello, \ufffd\\n\\x1bver!'\n"


def test_chart_shows_waiting_echo_pause_and_failure(start):
    command = ["multi_client.py", "--clients", 1, "--messages", 2]
    with act_as_server(start, *command) as (client, connection):
        client.wait_for("Starting clients: 1\n")
        message = connection.recv(1024)
        connection.sendall(message[:5])  # not yet a whole echo
        time.sleep(0.4)  # several columns of the chart
        connection.sendall(message[5:])
        connection.recv(1024)
        time.sleep(0.4)
        connection.sendall(message)  # the wrong one
        printed = client.wait_for_exit(status=1)
    assert re.search(r"^Client 1 +\.+o-+\.+x$", printed, re.MULTILINE)
    assert "Echoes: 1 of 2\n" in printed
    assert "the first: Client 1: wrong echo: b'Client 1, message 1'\n" in printed


@posix_64
def test_client_whose_thread_cannot_start_is_a_failure(start):
    code = "import multi_client as m, threading; threading.stack_size(2**50); m.main()"
    printed = start("-c", code, "--clients=1", "--messages=1").wait_for_exit(1)
    assert "Failures: 1, the first: Client 1: can't start new thread\n" in printed
    assert re.search("^Client 1 +x$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    "name, options, status, error",
    [
        ("server.py", "--port 65536", 1, "Cannot listen on localhost:65536: "),
        ("server.py", "--host é..b", 1, "Cannot listen on é..b:8080: "),
        ("client.py", "--port 65536", 1, "No echo from localhost:65536: "),
        ("client.py", "--host é..b", 1, "No echo from é..b:8080: "),
        ("multi_client.py", "--port 65536", 1, "Echoes: 0 of 15\n"),
        ("multi_client.py", "--host é..b", 1, "Failures: 5, the first: Client "),
        ("multi_client.py", "--clients 0", 2, "--clients and --messages start at 1"),
        ("multi_client.py", "--messages 0", 2, "--clients and --messages start at 1"),
        ("multi_client.py", "--delay -1", 2, "--delay at 0"),
    ],
)
def test_mistake_is_reported_without_a_traceback(start, name, options, status, error):
    printed = start(name, *options.split()).wait_for_exit(status)
    assert error in printed
    assert "Traceback" not in printed


# The README


def blocks(language, title):
    """Return the code blocks of the section whose title begins with `title`."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    section = readme.split(f"# {title}")[1].split("\n##")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def save_block(title, port, folder):
    """Save a program of the README, with another port; return its path."""
    (source,) = blocks("python", title)
    program = folder / f"{title}.py"
    program.write_text(source.replace("8080", str(port)), encoding="utf-8")
    return program


def save_edited_server(folder, *titles):
    """Save server.py with the edits of these sections; return its path."""
    source = (HERE / "server.py").read_text(encoding="utf-8")
    for title in titles:
        (diff,) = blocks("diff", title)
        for edit in diff.split("...\n"):
            lines = edit.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if not line.startswith("+"))
            new = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert source.count(old) == 1, f"not exactly once:\n{old}"
            source = source.replace(old, new)
    edited = folder / "my_server.py"
    edited.write_text(source, encoding="utf-8")
    return edited


def test_readme_shows_what_client_and_server_print(start, server):
    client = start("client.py", "--port", server.port())
    server.wait_for("Connection closed")
    shown_by_client, shown_by_server = blocks("text", "Run it")
    assert client.wait_for_exit() == shown_by_client
    port = r"\d{4,5}\b"
    printed = re.sub(port, "PORT", server.printed())
    assert printed == re.sub(port, "PORT", shown_by_server)


def test_core_serves_client_of_the_reference_beside_another(start, connect, tmp_path):
    core = start(save_block("The core", 0, tmp_path))
    idle = connect(core)
    client = start(save_block("A client", core.port(), tmp_path))
    assert client.wait_for_exit() == "Hello\n"
    core.wait_for("Accepted connection from ", times=2)
    idle.shutdown(socket.SHUT_WR)
    assert idle.recv(1024) == b""  # the core closes its end, too


def test_reference_test_passes(start, tmp_path):
    test = start("-m", "pytest", save_block("A test", 0, tmp_path))
    assert "1 passed" in test.wait_for_exit()


def echo_columns(chart):
    """Return the columns of a chart in which there are echoes, row by row."""
    rows = []
    for row in re.findall("^Client .*", chart, re.MULTILINE):
        rows.append([mark.start() for mark in re.finditer("o", row)])
    rows.sort()  # the clients may be served in another order
    return [column for row in rows for column in row]


def assert_chart(start, server, shown):
    """Check that multi_client.py draws the chart, give or take 4 columns."""
    printed = start("multi_client.py", "--port", server.port()).wait_for_exit()
    assert echo_columns(printed) == pytest.approx(echo_columns(shown), abs=4), printed
    without_rows = re.compile(r"^Client .*\n|\.\d\b", re.MULTILINE)
    assert without_rows.sub("", printed) == without_rows.sub("", shown)


def test_threads_draw_the_second_chart(start, server):
    _, second_chart = blocks("text", "A threaded")
    assert_chart(start, server, second_chart)


def test_experiment_draws_the_first_chart(start, tmp_path):
    first_chart, _ = blocks("text", "A threaded")
    server = start(save_edited_server(tmp_path, "Experiment"), "--port", 0)
    assert_chart(start, server, first_chart)


def test_logging_shows_time_thread_and_message(start, connect, tmp_path):
    server = start(save_edited_server(tmp_path, "1. Logging"), "--port", 0)
    echo(connect(server), b"Hi")
    server.wait_for(" [MainThread] Accepted connection from ")  # after the time
    server.wait_for("] Received 2 bytes: 'Hi'\n")


def test_commands_are_answered_and_other_lines_are_echoed(start, connect, tmp_path):
    edited = save_edited_server(tmp_path, "1. Logging", "2. Commands")
    client_socket = connect(start(edited, "--port", 0))
    client_socket.sendall(b"first\nsec")
    time.sleep(0.2)  # so that the server receives these bytes alone
    client_socket.sendall(b"ond\n/time\nlast\n/quit\n")
    with client_socket.makefile("rb") as reader:  # until the server closes it
        first, second, now, last = reader.readlines()
    assert first + second + last == b"first\nsecond\nlast\n"
    time.strptime(now.decode().strip())  # raises ValueError if this is not a time


def test_chat_sends_each_line_to_all_clients(start, tmp_path):
    edited = save_edited_server(tmp_path, "1. Logging", "2. Commands", "3. Chat")
    server = start(edited, "--port", 0)
    line_client = save_block("2. Commands", server.port(), tmp_path)
    ann, bob = start(line_client), start(line_client)
    for client in [ann, bob]:
        client.stdin.write(b"Hello\n")
        client.stdin.flush()
        client.wait_for(": Hello'\n")
    ann.wait_for(": Hello'\n", times=2)
    ann.stdin.close()
    ann.wait_for_exit()
    bob.stdin.write(b"Bye\n/quit\n")
    bob.stdin.flush()
    assert ": Bye'\n" in bob.wait_for_exit()
