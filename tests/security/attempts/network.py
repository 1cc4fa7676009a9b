"""Reaching the host's network and its sockets, and asking for sockets that reach below."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from security.attempt import Denied, Outside, attempt
from security.calls import raise_errno
from security.reach import reaches_kernel

_SOCKET_FAMILY = 0
_AF_ALG, _AF_VSOCK, _AF_BLUETOOTH, _AF_TIPC = 38, 40, 31, 30
_NETLINK_ROUTE, _NETLINK_AUDIT, _NETLINK_NETFILTER = 0, 9, 12
_NLMSG_ERROR, _NLM_F_REQUEST, _NLM_F_ACK = 2, 1, 4
_RTM_NEWLINK, _AUDIT_GET = 16, 1000
_NFT_MSG_GETGEN = 10 << 8 | 16
_IFF_UP, _LOOPBACK = 1, 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_NOT_THERE = "ECONNREFUSED ENETUNREACH EADDRNOTAVAIL"


@attempt(_NOT_THERE, each_scene="tcp_listener tcp6_listener")
def loopback_stream(address: list[str | int]) -> str:
    """Connect to what listens on the host's loopback address."""
    with socket.create_connection(tuple(address[:2]), timeout=5) as connection:
        return connection.recv(100).decode()


@attempt(_NOT_THERE, scenes="udp_listener")
def loopback_datagram(address: list[str | int]) -> str:
    """Ask what answers on the host's loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        datagrams.connect(tuple(address))
        datagrams.send(b"anyone?")
        return datagrams.recv(100).decode()


@attempt(_NOT_THERE, each_scene="abstract_listener abstract_datagram")
def abstract_socket(name: str, kind: int) -> str:
    """An abstract socket has no file, so that no mount and no mode hides it."""
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.settimeout(5)
        client.connect(f"\0{name}")
        return client.recv(100).decode() if kind == socket.SOCK_STREAM else str(client.send(b"anyone?"))


@attempt("ENOENT EACCES", scenes="path_listener workspace")
def path_socket_by_link(path: str, work: str) -> str:
    link = Path(work, "link")
    link.symlink_to(path)
    return path_socket(str(link))


@attempt("ENOENT EACCES", scenes="path_listener")
def path_socket(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        return client.recv(100).decode()


@attempt(
    "ENETUNREACH",
    cases={
        "public": {"address": "1.1.1.1"},
        "metadata": {"address": "169.254.169.254"},
        "private": {"address": "10.0.0.1"},
    },
    scenes="default_route",
    outside=Outside.OWN_NETWORK,
)
def route(address: str) -> str:
    """Connecting a datagram socket looks for a route and sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((address, 80))
        return str(datagrams.getsockname())


@attempt("ABSENT", scenes="default_route", outside=Outside.OWN_NETWORK)
def route_listed() -> str:
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if not routes:
        raise Denied("ABSENT")
    return str(routes)


@attempt("ABSENT", scenes="tcp_listener")
def listener_listed(address: list[str | int]) -> str:
    """Find the host's listener in the table of sockets."""
    port = f":{int(address[1]):04X} "
    if port not in Path("/proc/net/tcp").read_text():
        raise Denied("ABSENT", port)
    return port


@attempt("ABSENT", scenes="abstract_listener")
def abstract_name_listed(name: str) -> str:
    if name not in Path("/proc/net/unix").read_text():
        raise Denied("ABSENT", name)
    return name


@attempt(
    "EPERM EACCES EAFNOSUPPORT",
    cases={
        "icmp": {"kind": socket.SOCK_RAW, "protocol": socket.IPPROTO_ICMP},
        "tcp": {"kind": socket.SOCK_RAW, "protocol": socket.IPPROTO_TCP},
    },
    needs_root=True,
)
def raw_socket(kind: int, protocol: int) -> str:
    with socket.socket(socket.AF_INET, kind, protocol) as raw:
        return str(raw)


@attempt(
    "EPERM EACCES EAFNOSUPPORT",
    cases={"frames": {"kind": socket.SOCK_RAW}, "packets": {"kind": socket.SOCK_DGRAM}},
    needs_root=True,
)
def packet_socket(kind: int) -> str:
    with socket.socket(socket.AF_PACKET, kind, socket.htons(3)) as packet:
        return str(packet)


@attempt("EPERM EACCES EAFNOSUPPORT")
def vsock_socket() -> str:
    """The way to the hypervisor and to other machines on it."""
    with socket.socket(_AF_VSOCK, socket.SOCK_STREAM) as stream:
        return str(stream)


@attempt(
    "EPERM EACCES EAFNOSUPPORT",
    cases={
        "alg": {"family": _AF_ALG},
        "vsock": {"family": _AF_VSOCK},
        "bluetooth": {"family": _AF_BLUETOOTH},
        "tipc": {"family": _AF_TIPC},
    },
)
def reach_family(family: int) -> str:
    """Get a socket of a rare family past every filter, whether or not this kernel knows it."""
    reaches_kernel("socket", family, socket.SOCK_SEQPACKET, 0, only=(_SOCKET_FAMILY, family))
    return "would be made"


@attempt("EPERM ECONNREFUSED EACCES EAFNOSUPPORT EPROTONOSUPPORT", needs_root=True)
def audit_status() -> str:
    return _ask(_NETLINK_AUDIT, _AUDIT_GET, b"")


@attempt("EPERM EACCES EAFNOSUPPORT", outside=Outside.OWN_NETWORK)
def firewall_rules() -> str:
    """Ask for the generation of the firewall's rules."""
    return _ask(_NETLINK_NETFILTER, _NFT_MSG_GETGEN, struct.pack("BBH", 0, 0, 0))


@attempt("EPERM EACCES EAFNOSUPPORT", outside=Outside.OWN_NETWORK)
def bring_link_up() -> str:
    """Change an interface by netlink."""
    return _ask(_NETLINK_ROUTE, _RTM_NEWLINK, struct.pack("BxHiII", 0, 0, _LOOPBACK, _IFF_UP, _IFF_UP))


@attempt("EPERM EACCES", outside=Outside.OWN_NETWORK)
def bring_link_up_by_ioctl() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        (flags,) = struct.unpack_from("H", request, 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
    return "changed"


def _ask(protocol: int, kind: int, body: bytes) -> str:
    """Send one netlink request and return the answer, or raise the error that came instead."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        netlink.send(struct.pack("IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body)
        answer = netlink.recv(8192)
    _, kind, _, _, _ = struct.unpack_from("IHHII", answer)
    if kind == _NLMSG_ERROR and (code := struct.unpack_from("i", answer, 16)[0]):
        raise_errno(-code)
    return f"{len(answer)} bytes"
