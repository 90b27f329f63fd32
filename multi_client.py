"""Many echo clients at once, and a chart of when server.py answered each of them.

    python multi_client.py [--clients N] [--messages N] [--delay SECONDS]
                           [--host HOST] [--port PORT] [--timeout SECONDS]

Start server.py in another terminal first. In the chart, each client has a row, and time
runs from left to right: a server with a thread per client serves all of them at once.
"""

import argparse
import math
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # where server.py listens unless told otherwise
PORT = 8080  # the port on which server.py listens unless told otherwise
CLIENTS = 5  # enough to see a pattern
MESSAGES = 3  # from each client, one after another
DELAY = 0.5  # seconds from an echo to the next message
TIMEOUT = 10.0  # seconds that each call on a socket may block
LONGEST = 86400  # seconds, one day: a longer --delay or --timeout is surely a mistake
COLUMN = 0.1  # seconds that one column of the chart stands for
WIDTH = 64  # columns of a long run, in which each stands for more seconds
ROWS = 16  # clients to draw at most, so that everything fits a terminal of 24 lines

failures = []  # what went wrong; append() is atomic, so the threads need no lock


def run_client(name, echo_times, started, address, args):
    """Be one client: send messages, check their echoes, note their times (seconds)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(args.timeout)
            client_socket.connect(address)
            for number in range(1, args.messages + 1):
                if number > 1:
                    time.sleep(args.delay)
                message = f"{name}, message {number}".encode()
                client_socket.sendall(message)
                response = receive_exactly(client_socket, len(message))
                if response != message:
                    raise ConnectionError(f"sent {message!r}, received {response!r}")
                echo_times.append(time.perf_counter() - started)
    except ConnectionRefusedError:
        server = f"{args.host}:{args.port}"
        failures.append(
            f"{name}: nothing is listening on {server} (start server.py first)"
        )
    except (OSError, OverflowError) as error:
        advice = "check --host and --port, and what the server printed"
        failures.append(f"{name}: {error} ({advice}, or try fewer --clients)")


def receive_exactly(client_socket, size):
    """Return the next `size` bytes; ConnectionError if the server closes earlier."""
    received = b""
    # TCP is a stream of bytes, without message boundaries: a recv() may return a part.
    while len(received) < size:
        data = client_socket.recv(size - len(received))
        if not data:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += data
    return received


def run_clients(started, address, args):
    """Run all clients at once; return the times of the echoes of each, by its name."""
    clients = {}
    threads = []
    for number in range(1, args.clients + 1):
        name = f"Client {number}"
        echo_times = []
        clients[name] = echo_times
        thread_args = (name, echo_times, started, address, args)
        thread = threading.Thread(target=run_client, args=thread_args)
        try:
            thread.start()  # returns at once, so the next client starts meanwhile
            threads.append(thread)
        except RuntimeError as error:
            failures.append(f"{name}: {error} (try fewer --clients)")
    for thread in threads:
        thread.join()  # blocks until that thread has finished
    return clients


def most_at_once(clients):
    """Return how many clients, at most, were being served at the same moment."""
    # A client is being served from its first to its last echo. Being connected proves
    # nothing: the kernel connects clients before the server accepts them.
    changes = []
    for echo_times in clients.values():
        if echo_times:
            changes.append((echo_times[0], 1))
            changes.append((echo_times[-1], -1))
    served = 0
    most = 0
    for _, change in sorted(changes):
        served += change
        most = max(most, served)
    return most


def row(echo_times, column, width):
    """Return a row of the chart: up to `width` columns of `column` seconds each."""
    if not echo_times:
        return "." * width  # never served
    echoes = [int(seconds / column) for seconds in echo_times]
    marks = ["."] * echoes[0]
    marks += ["-"] * (echoes[-1] - echoes[0] + 1)
    for echo in echoes:
        marks[echo] = "o"
    return "".join(marks)


def draw(clients, seconds):
    """Print a chart of a run that took `seconds`, in the order of the first echoes."""
    column = max(COLUMN, seconds / WIDTH)
    width = int(seconds / column) + 1
    served = [name for name in clients if clients[name]]
    served.sort(key=lambda name: clients[name][0])
    never_served = [name for name in clients if not clients[name]]
    names = served + never_served
    step = math.ceil(len(names) / ROWS)
    drawn = names[::step]
    drawn[-1] = names[-1]  # the last one is always seen, because it waited longest
    for name in drawn:
        print(f"{name:13} {row(clients[name], column, width)}")
    print(f". waiting   o echo   - being served   one column: {column:.2g} seconds")
    if step > 1:
        print(f"(one client in {step} is drawn)")
    print()


def read_options():
    """Return the options from the command line; exit if one of them makes no sense."""
    parser = argparse.ArgumentParser(
        description="Many echo clients for server.py, all at once.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=HOST, help="address of the server")
    parser.add_argument("--port", default=PORT, type=int, help="port of the server")
    parser.add_argument("--clients", default=CLIENTS, type=int, help="how many clients")
    parser.add_argument(
        "--messages", default=MESSAGES, type=int, help="messages from each client"
    )
    parser.add_argument(
        "--delay",
        default=DELAY,
        type=float,
        help="seconds between two messages of a client",
    )
    parser.add_argument(
        "--timeout", default=TIMEOUT, type=float, help="seconds to wait for the server"
    )
    args = parser.parse_args()
    if not 1 <= args.clients <= 65535:  # each client needs a port of its own
        parser.error("--clients must be from 1 to 65535")
    if args.messages < 1:
        parser.error("--messages must be at least 1")
    if not 0 <= args.delay <= LONGEST:
        parser.error(f"--delay must be from 0 to {LONGEST}")
    if not 0 < args.timeout <= LONGEST:
        parser.error(f"--timeout must be more than 0 and at most {LONGEST}")
    return args


def main():
    """Run all clients at once, wait for them, and show what happened."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback on Ctrl-C
    # A thread that waits for its turn asks for it every 5 milliseconds. With thousands
    # of threads, the asking alone would keep a processor busy for half a minute.
    sys.setswitchinterval(0.5)
    args = read_options()
    try:
        address = (socket.gethostbyname(args.host), args.port)  # once for all clients
    except (OSError, UnicodeError) as error:
        sys.exit(f"Cannot find {args.host}: {error} (check --host)")
    print(f"Starting clients: {args.clients}", flush=True)
    started = time.perf_counter()
    clients = run_clients(started, address, args)
    seconds = time.perf_counter() - started
    draw(clients, seconds)
    if args.messages > 1:  # one echo alone has no duration, so none could overlap
        most = most_at_once(clients)
        print(f"Clients served at the same time: {most} of {args.clients}")
    echoes = sum(len(echo_times) for echo_times in clients.values())
    print(f"Echoes: {echoes}, failures: {len(failures)}, seconds: {seconds:.1f}")
    if failures:
        sys.exit(f"Failed: {len(failures)} of {args.clients}. First, {failures[0]}")


if __name__ == "__main__":
    main()
