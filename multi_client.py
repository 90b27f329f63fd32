"""Many echo clients at once: they prove that server.py serves them at the same time.

    python multi_client.py [--clients N] [--messages N] [--delay SECONDS]
                           [--host HOST] [--port PORT] [--timeout SECONDS]

Start server.py in another terminal first. You will see the lines of the clients
alternate, and at the end how long they took together, and how long added up.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # where server.py listens if it is not told otherwise
PORT = 8080  # likewise
CLIENTS = 5  # few enough to follow each of them on the screen
MESSAGES = 3  # from each client
DELAY = 0.5  # seconds between the messages of a client: time for the eye to follow
TIMEOUT = 10  # seconds of silence after which the server counts as lost
FEWER = "try fewer --clients or a higher limit: see ulimit -a"
ADVICE = {  # what to do about an error of this kind
    ConnectionRefusedError: "start server.py first",
    socket.timeout: "see what the server printed; if only slow, try a longer --timeout",
    OSError: f"check --host, or {FEWER}",  # no file descriptor, port or way was left
}

# All threads append to these lists. append() is one step, so no lock is needed.
echo_times = []  # seconds that each echo took
served = []  # names of the clients that had an echo when all met
failures = []  # name and error of each client that failed
log_lock = threading.Lock()  # all threads share one terminal: one line at a time


def log(message):
    """Print one whole line that begins with the name of the thread that speaks."""
    with log_lock:
        try:
            print(f"[{threading.current_thread().name}] {message}", flush=True)
        except OSError:  # nobody reads any more (`| head`): go on, print to nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def receive_exactly(client_socket, size):
    """Return the next `size` bytes; ConnectionError if the server closes earlier."""
    received = b""
    while len(received) < size:  # TCP keeps no messages: one recv() may bring a part
        data = client_socket.recv(size - len(received))
        if not data:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += data
    return received


def run_client(address, args, meeting):
    """Be one client: send every message, check every echo; runs in its own thread."""
    name = threading.current_thread().name
    started = time.perf_counter()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(args.timeout)
            client_socket.connect(address)
            log(f"connected from port {client_socket.getsockname()[1]}")
            for number in range(1, args.messages + 1):
                message = f"{name}, message {number}".encode()
                client_socket.sendall(message)
                response = receive_exactly(client_socket, len(message))
                if response != message:
                    raise ValueError(f"sent {message!r}, received {response!r}")
                echo_times.append(time.perf_counter() - started)
                log(f"message {number} came back")
                if number == 1:
                    # To be connected proves nothing: the system connects clients before
                    # the server accepts them. An echo is proof, so all meet here.
                    if not meeting.broken:
                        served.append(name)
                    meeting.wait()
                started = time.perf_counter()  # waiting for others is not our own time
                if number < args.messages:
                    time.sleep(args.delay)
    except threading.BrokenBarrierError:
        pass  # another client failed to come
    except (OSError, OverflowError, ValueError) as error:
        failures.append((name, error))
        if name not in served:
            meeting.abort()  # nobody needs to wait for this client


def run_clients(address, args, meeting):
    """Start all clients, each in a thread of its own, and wait until all have ended."""
    threads = []
    for number in range(1, args.clients + 1):
        thread = threading.Thread(
            target=run_client, args=(address, args, meeting), name=f"Client {number}"
        )
        try:
            thread.start()  # does not wait: the client runs while the next one starts
        except RuntimeError as error:  # the system has no thread left
            meeting.abort()
            sys.exit(f"Only {number - 1} clients started: {error} ({FEWER})")
        threads.append(thread)
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait()
        log(f"All {args.clients} clients were being served at the same time.")
    for thread in threads:
        thread.join()


def explain(args, meeting):
    """Return what went wrong, in one line for each kind of error."""
    kinds, lines = {}, []
    for name, error in failures:
        kinds.setdefault(type(error), []).append(f"{name}: {error}")
    if meeting.broken and set(kinds) <= {socket.timeout}:
        count = f"{len(served)} of {args.clients} clients"
        lines.append(f"The server serves only {count} at a time.")
    for kind, cases in kinds.items():
        count = f"{len(cases)} of {args.clients} clients failed"
        advice = ADVICE.get(kind, "check --port, and what the server printed")
        lines.append(f"{count}, first {cases[0]} ({advice})")
    return "\n".join(lines)


def main():
    """Read the options, run the clients and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends all threads at once
    parser = argparse.ArgumentParser(description="Many echo clients at once.")
    option = parser.add_argument
    option("--host", default=HOST, help="of the server (%(default)s)")
    option("--port", default=PORT, type=int, help="of the server (%(default)s)")
    option("--clients", default=CLIENTS, type=int, help="how many (%(default)s)")
    option("--messages", default=MESSAGES, type=int, help="from each (%(default)s)")
    option("--delay", default=DELAY, type=float, help="seconds (%(default)s)")
    option("--timeout", default=TIMEOUT, type=float, help="seconds (%(default)s)")
    args = parser.parse_args()
    if args.clients < 1 or args.messages < 1:
        parser.error("--clients and --messages must be at least 1")
    if not (0 <= args.delay < 1e6 and 0 < args.timeout < 1e6):
        parser.error("--delay and --timeout must be seconds, --timeout more than 0")
    try:
        address = (socket.gethostbyname(args.host), args.port)  # look it up only once
    except (OSError, UnicodeError) as error:
        sys.exit(f"Cannot find {args.host}: {error} (check --host)")
    # Python 3.8 on Linux takes a file descriptor when its first thread ends, and aborts
    # if none is left. So let a thread that does nothing end while there are some.
    threading.Thread().start()
    meeting = threading.Barrier(args.clients + 1, timeout=args.timeout)  # and ourselves
    started = time.perf_counter()
    run_clients(address, args, meeting)
    took = time.perf_counter() - started
    if failures or meeting.broken:
        sys.exit(explain(args, meeting))
    log(
        f"{args.clients} clients, {len(echo_times)} echoes, 0 errors, in {took:.2f} s; "
        f"the clients' own times add up to {sum(echo_times):.2f} s."
    )


if __name__ == "__main__":
    main()
