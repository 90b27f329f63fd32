"""Tests of server.py, client.py and multi_client.py, run as a person would run them.

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

from client import receive_exactly
from multi_client import draw
from server import SHOWN

HERE = Path(__file__).parent
WAIT = 15  # seconds after which a test gives up waiting

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
each_client = pytest.mark.parametrize(
    "command", [["client.py"], ["multi_client.py", "--clients=1"]]
)


class Script:
    """A script that is running, or has exited."""

    def __init__(self, command, output_file):
        self.output_file = output_file
        with output_file.open("wb") as file:
            self.process = subprocess.Popen(
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
        assert self.process.wait(WAIT) == status  # -2 means: by signal 2
        return self.printed()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Provide a function that starts a script; kill all scripts at the end."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")  # as on an ASCII-only terminal
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # warns about unclosed sockets
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # would hide a missing flush
    scripts = []

    def start_script(name, *options, prefix=()):
        command = [*prefix, sys.executable, name, *[str(option) for option in options]]
        script = Script(command, tmp_path / f"output_{len(scripts)}.txt")
        scripts.append(script)
        return script

    yield start_script
    for script in scripts:
        script.process.kill()
        script.process.communicate()  # waits, and closes the pipe to its stdin
        print(script.process.args, script.printed(), sep="\n")  # if the test fails


@pytest.fixture
def server(start):
    """Provide a server.py that is running on a free port."""
    return start("server.py", "--port", 0)


def echo(client_socket, message):
    """Send a message and return its echo."""
    client_socket.sendall(message)
    return receive_exactly(client_socket, len(message))


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


# The server


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


def test_long_text_is_truncated(server, connect):
    echo(connect(server), b"x" * 1000)
    server.wait_for(f"Received 1000 bytes: '{'x' * SHOWN}'\n")


def test_end_of_a_long_echo_is_not_held_back(server, connect):
    client_socket = connect(server)
    durations = []
    for _ in range(20):
        started = time.perf_counter()
        echo(client_socket, b"x" * 40_000)
        durations.append(time.perf_counter() - started)
    assert statistics.median(durations) < 0.02  # Nagle's algorithm: 0.04 (Linux)


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


@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
def test_clients_wait_when_file_descriptors_run_out(start, connect):
    server = start("server.py", "--port", 0, prefix=["prlimit", "--nofile=48"])
    clients = [connect(server) for _ in range(90)]  # more than 48 file descriptors
    server.wait_for("Cannot accept clients for now: [Errno 24] Too many open files")

    for client_socket in clients:
        assert echo(client_socket, b"served") == b"served"
        client_socket.close()
    assert server.printed().count("Cannot accept") < 100  # the server pauses each time


@posix
def test_server_keeps_running_when_its_output_is_closed(start, connect):
    head = ["bash", "-c", 'exec "$@" > >(head -n 1)', "bash"]  # server.py | head -n 1
    server = start("server.py", "--port", 0, prefix=head)
    for _ in range(3):
        assert echo(connect(server), b"Hi") == b"Hi"


def test_port_that_is_in_use_is_reported(start, server):
    second = start("server.py", "--port", server.port())
    error = f"Cannot listen on localhost:{server.port()}: "
    assert error in second.wait_for_exit(status=1)


@posix
def test_ctrl_c_stops_a_busy_server_and_frees_its_port(start, server, connect):
    connect(server)  # an idle client
    start("multi_client.py", "--clients", 500, "--delay", 0, "--port", server.port())
    server.wait_for("Connection closed", times=50)
    server.process.send_signal(signal.SIGINT)
    assert "Traceback" not in server.wait_for_exit(-signal.SIGINT)

    start("server.py", "--port", server.port()).wait_for("listening on port")


# The clients


def test_several_words_are_one_message(start, server):
    client = start("client.py", "--port", server.port(), "Hello", "dear", "é")
    assert client.wait_for_exit() == "Server responded: 'Hello dear \\xe9'\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second local address")
def test_host_option_works_for_server_and_clients(start, connect):
    server = start("server.py", "--host", "127.0.0.2", "--port", 0)
    with pytest.raises(ConnectionRefusedError):
        connect(server)  # at 127.0.0.1
    for name in ["client.py", "multi_client.py"]:
        start(name, "--host", "127.0.0.2", "--port", server.port()).wait_for_exit()


@pytest.fixture
def listener():
    """Provide a listening socket, for tests that act as the server."""
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        server_socket.settimeout(WAIT)
        yield server_socket


def act_as_server(start, command, listener):
    """Start a client that connects to `listener`; return it and the connection."""
    script = start(*command, "--port", listener.getsockname()[1])
    connection, _ = listener.accept()
    connection.settimeout(WAIT)
    return script, connection


@each_client
def test_echo_that_arrives_in_pieces_is_put_together(start, listener, command):
    script, connection = act_as_server(start, command, listener)
    with connection:
        while message := connection.recv(1024):
            connection.sendall(message[:5])
            time.sleep(0.2)  # so that the client receives these bytes alone
            connection.sendall(message[5:])
    printed = script.wait_for_exit()
    assert "'Hello, Server!'" in printed or "Echoes: 3," in printed


@each_client
def test_connection_that_is_closed_early_is_reported(start, listener, command):
    script, connection = act_as_server(start, command, listener)
    with connection:
        connection.recv(1024)
        connection.sendall(b"Hello")
    assert "closed after 5 of" in script.wait_for_exit(status=1)


@posix
@each_client
def test_ctrl_c_stops_a_waiting_client_quietly(start, listener, command):
    script, connection = act_as_server(start, command, listener)
    with connection:
        connection.recv(1024)
        script.process.send_signal(signal.SIGINT)
        assert "Traceback" not in script.wait_for_exit(-signal.SIGINT)


@pytest.mark.parametrize("name", ["client", "multi_client"])
def test_client_gives_up_on_a_silent_server(start, listener, name):
    code = f"import {name}; {name}.TIMEOUT = 0.3; {name}.main()"
    client = start("-c", code, "--port", listener.getsockname()[1])
    assert "timed out" in client.wait_for_exit(status=1)


def test_client_shows_an_echo_that_is_not_text(start, listener):
    script, connection = act_as_server(start, ["client.py"], listener)
    with connection:
        connection.sendall(b"Hello, \xff\n\x1bver!")  # as long as the message
        printed = script.wait_for_exit()
    assert printed == "Server responded: 'Hello, \\ufffd\\n\\x1bver!'\n"


def test_echo_of_another_client_is_a_failure(start, listener):
    command = ["multi_client.py", "--clients", 1]
    script, connection = act_as_server(start, command, listener)
    with connection:
        message = connection.recv(1024)
        connection.sendall(message.replace(b"Client 1", b"Client 2"))
    error = "sent b'Client 1, message 1', received b'Client 2, message 1'"
    assert f"First failure: Client 1: {error}" in script.wait_for_exit(status=1)


def test_chart_is_sorted_by_waiting_time(capsys):
    draw({"never": [], "late": [32], "first": [0.9, 2], "early": [0.1]}, seconds=64)
    assert capsys.readouterr().out == (
        "first         o-o\n"
        "early         o\n"
        f"late          {'.' * 32}o\n"
        f"never         {'.' * 65}\n"
        ". not served   o echo   - being served   one column: 1.00 seconds\n"
    )


def test_chart_of_many_clients_fits_the_terminal(capsys):
    clients = {f"Client {number}": [0.1, 99.9] for number in range(10_000)}
    clients["Client 0"] = []  # was never served
    draw(clients, seconds=100)
    *rows, drawn, _ = capsys.readouterr().out.splitlines()
    assert len(rows) == 16  # of 10,000, which is one row in 625
    assert drawn == "(one client in 625 is drawn)"
    assert max(len(row) for row in rows) < 80
    assert rows[-1] == f"Client 0      {'.' * 65}"


def test_without_echoes_there_is_no_chart_but_status_1(start):
    client = start("multi_client.py", "--host", "é..b")  # raises a TypeError
    printed = client.wait_for_exit(status=1)
    assert "First failure: see the traceback" in printed
    assert "one column" not in printed


@pytest.mark.parametrize(
    "name, options, status, error",
    [
        ("server.py", "--port 65536", 1, "Cannot listen on localhost:65536: "),
        ("client.py", "--port 65536", 1, "(is server.py running there?)"),
        ("multi_client.py", "--port 65536", 1, "First failure: Client "),
        ("multi_client.py", "--port 1", 1, "Echoes: 0, failures: 5\n"),
        ("multi_client.py", "--clients 0", 2, "--clients and --messages start at 1"),
        ("multi_client.py", "--messages 0", 2, "--clients and --messages start at 1"),
        ("multi_client.py", "--delay -1", 2, "--delay at 0"),
    ],
)
def test_mistake_is_reported_without_a_traceback(start, name, options, status, error):
    printed = start(name, *options.split()).wait_for_exit(status)
    assert error in printed
    assert not re.search("Traceback|Warning", printed)


# The README


def blocks(language, title):
    """Return the code blocks of the section whose title begins with `title`."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    section = readme.split(f"# {title}")[1].split("\n#")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def start_edited(start, tmp_path):
    """Provide a function that starts server.py with the edits of a section."""

    def start_server(title):
        source = (HERE / "server.py").read_text(encoding="utf-8")
        for diff in blocks("diff", title):
            lines = diff.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if not line.startswith("+"))
            new = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert source.count(old) == 1, f"not exactly once in server.py:\n{old}"
            source = source.replace(old, new)
        copy = tmp_path / "server.py"
        copy.write_text(source, encoding="utf-8")
        return start(copy, "--port", 0)

    return start_server


def test_readme_shows_what_client_and_server_print(start, server):
    client = start("client.py", "--port", server.port())
    server.wait_for("Connection closed")
    shown_by_client, shown_by_server = blocks("text", "Run it")
    assert client.wait_for_exit() == shown_by_client
    port = r"\d{4,5}\b"
    printed = re.sub(port, "PORT", server.printed())
    assert printed == re.sub(port, "PORT", shown_by_server)


def test_core_of_the_readme_runs(start, listener, connect, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # the core does not flush
    port = listener.getsockname()[1]
    listener.close()  # now its port is free
    (source,) = blocks("python", "The core")
    core = tmp_path / "core.py"
    core.write_text(source.replace("8080", str(port)), encoding="utf-8")
    server = start(core)
    connect(server)  # an idle client
    assert echo(connect(server), b"served") == b"served"


def echo_columns(chart):
    """Return, row by row, the columns of a chart in which there are echoes."""
    columns = []
    for row in re.findall("^Client .*", chart, re.MULTILINE):
        columns += [mark.start() for mark in re.finditer("o", row)]
    return columns


def below_chart(chart):
    """Return the lines below a chart, without tenths of seconds."""
    return re.sub(r"\.\d\b", "", chart.split("\n. ")[1])


def assert_chart(start, server, shown):
    """Check that multi_client.py draws the chart, give or take 4 columns."""
    printed = start("multi_client.py", "--port", server.port()).wait_for_exit()
    assert echo_columns(printed) == pytest.approx(echo_columns(shown), abs=4), printed
    assert below_chart(printed) == below_chart(shown)


def test_threads_draw_the_second_chart(start, server):
    _, second_chart = blocks("text", "A threaded")
    assert_chart(start, server, second_chart)


def test_experiment_1_draws_the_first_chart(start, start_edited):
    first_chart, _ = blocks("text", "A threaded")
    assert_chart(start, start_edited("1. "), first_chart)


def test_experiment_2_makes_the_fifth_client_wait_for_a_thread(start, start_edited):
    (chart,) = blocks("text", "2. ")
    assert_chart(start, start_edited("2. "), chart)


def test_experiment_3_receives_one_byte_at_a_time(start, start_edited):
    server = start_edited("3. ")
    client = start("client.py", "--port", server.port(), "é")
    assert client.wait_for_exit() == "Server responded: '\\xe9'\n"
    server.wait_for("Received 1 bytes: '\\ufffd'\n", times=2)


def test_experiment_4_stops_one_thread_but_not_the_server(start, start_edited):
    server = start_edited("4. ")
    for _ in range(2):
        start("client.py", "--port", server.port()).wait_for_exit()
    server.wait_for("ZeroDivisionError: division by zero\n", times=2)


def test_logging_shows_time_thread_and_message(start_edited, connect):
    server = start_edited("Logging")
    echo(connect(server), b"Hi")
    server.wait_for(" [MainThread] Accepted connection from ")  # after the time
    server.wait_for("] Received 2 bytes: 'Hi'\n")


def test_commands_are_obeyed_and_other_lines_are_echoed(start_edited, connect):
    client_socket = connect(start_edited("Commands"))
    client_socket.sendall(b"first\nsec")
    time.sleep(0.2)  # so that the server receives these bytes alone
    client_socket.sendall(b"ond\n/time\nlast\n/quit\n")
    with client_socket.makefile("rb") as file:  # until the server closes the connection
        first, second, now, last = file.readlines()
    assert first + second + last == b"first\nsecond\nlast\n"
    time.strptime(now.decode().strip())  # raises ValueError if this is not a time


def test_chat_sends_a_line_to_every_client(start, start_edited, tmp_path):
    server = start_edited("Chat")
    (source,) = blocks("python", "Chat")
    chat_client = tmp_path / "chat_client.py"
    chat_client.write_text(source.replace("8080", str(server.port())), encoding="utf-8")
    ann, bob = start(chat_client), start(chat_client)
    for chatter in [ann, bob]:
        chatter.process.stdin.write(b"Hello\n")
        chatter.process.stdin.flush()
        chatter.wait_for(r"'Hello\n'")  # its own line, so the server has added it

    ann.wait_for(r"'Hello\n'", times=2)
    server.process.kill()
    assert "Disconnected" in ann.wait_for_exit()
