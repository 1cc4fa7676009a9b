"""Memory and messages between processes of the box, and its loopback network."""

from __future__ import annotations

from mustwork.boxes import in_box, python

_ECHO = """
import socket, threading
def serve(listener):
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(100))
def echo(family, address):
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        threading.Thread(target=serve, args=(listener,)).start()
        with socket.socket(family) as client:
            client.connect(listener.getsockname())
            client.sendall(b"echo")
            assert client.recv(100) == b"echo"
"""


def test_loopback_streams() -> None:
    python(f"{_ECHO}\necho(socket.AF_INET, ('127.0.0.1', 0))\necho(socket.AF_INET, ('localhost', 0))")


def test_loopback_streams_of_version_6() -> None:
    python(f"{_ECHO}\necho(socket.AF_INET6, ('::1', 0))")


def test_loopback_datagrams() -> None:
    python(
        """
        import socket
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            one.bind(("127.0.0.1", 0))
            other.sendto(b"datagram", one.getsockname())
            assert one.recv(100) == b"datagram"
        """
    )


def test_sockets_of_the_box_alone() -> None:
    """A pair, an abstract name, a path, and a descriptor sent over one."""
    python(
        f"""{_ECHO}
import os
echo(socket.AF_UNIX, "\\0name")
echo(socket.AF_UNIX, "/tmp/socket")
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [os.open("/etc/passwd", os.O_RDONLY)])
_, fds, _, _ = socket.recv_fds(other, 10, 1)
assert os.read(fds[0], 4) == b"root"
"""
    )


def test_names_and_interfaces() -> None:
    python(
        """
        import socket
        assert socket.gethostbyname("localhost") == "127.0.0.1"
        assert socket.gethostbyname(socket.gethostname()).startswith("127.")
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        """
    )


def test_shared_memory() -> None:
    python(
        """
        import os
        from multiprocessing import shared_memory
        area = shared_memory.SharedMemory(create=True, size=4096)
        assert area.name in os.listdir("/dev/shm")
        if os.fork() == 0:
            same = shared_memory.SharedMemory(area.name)
            same.buf[0] = 7
            os._exit(0)
        os.wait()
        assert area.buf[0] == 7
        area.close()
        area.unlink()
        with open("/dev/shm/file", "w") as file:
            file.write("x")
        """
    )


def test_queues_and_locks_between_processes() -> None:
    python(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        queue, lock, value = context.Queue(), context.Lock(), context.Value("i", 0)
        def add():
            for _ in range(100):
                with lock:
                    value.value += 1
            queue.put("done")
        workers = [context.Process(target=add) for _ in range(4)]
        [worker.start() for worker in workers]
        assert [queue.get(timeout=20) for _ in workers] == ["done"] * 4
        [worker.join() for worker in workers]
        assert value.value == 400
        """
    )


def test_objects_of_system_v() -> None:
    python(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        segment = libc.shmget(1, ctypes.c_size_t(4096), 0o1600)
        libc.shmat.restype = ctypes.c_void_p
        assert libc.shmat(segment, None, 0) not in (None, ctypes.c_void_p(-1).value), ctypes.get_errno()
        assert libc.semget(1, 1, 0o1600) >= 0, ctypes.get_errno()
        assert libc.msgget(1, 0o1600) >= 0, ctypes.get_errno()
        """
    )


def test_event_loops() -> None:
    """epoll, eventfd, and asyncio on them."""
    python(
        """
        import asyncio, os, select
        counter = os.eventfd(0)
        poll = select.epoll()
        poll.register(counter, select.EPOLLIN)
        os.eventfd_write(counter, 3)
        assert poll.poll(1) and os.eventfd_read(counter) == 3
        async def main():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
        asyncio.run(main())
        """
    )


def test_pipes_and_memory_files() -> None:
    assert in_box(["/bin/sh", "-c", "mkfifo p; (echo through > p &) ; cat p"]) == "through\n"
    python(
        """
        import os
        file = os.memfd_create("m", os.MFD_ALLOW_SEALING)
        os.write(file, b"#!/bin/sh\\nexit 0\\n")
        assert os.spawnv(os.P_WAIT, f"/proc/self/fd/{file}", ["m"]) == 0
        """
    )
