"""Put this folder on PYTHONPATH and Python cannot reach any machine but this one: neither by address nor by name.

An audit hook, because nothing in the process can take it off again.
"""

import ipaddress
import sys


def _is_here(host) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(event: str, args: tuple) -> None:
    if event in ("socket.connect", "socket.sendto") and isinstance(args[-1], tuple):
        host = args[-1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if not _is_here(host):
        raise OSError(f"the network is off in this test, and something asked for {host!r}")


sys.addaudithook(_refuse)
