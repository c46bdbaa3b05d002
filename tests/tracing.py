"""What a command and all it starts ask of the kernel: connections, names, files made.

By strace, where it is there and may trace; else by a shim that a C compiler makes and LD_PRELOAD
puts before the C library, which sees no files. Both write lines of strace's form.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ADDRESSED = ("connect", "sendto", "sendmsg", "sendmmsg", "bind", "getaddrinfo")  # whom they mean
MAKES = ("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat",
         "renameat2", "link", "linkat", "symlink", "symlinkat")  # fmt: skip
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
CUT = " <unfinished ...>"
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
NAME_SERVICE = "/etc/resolv.conf"  # the C library reads it before it asks anybody for a name
HARMLESS = (" = -1 EEXIST", " = -1 ENOENT", " = -1 ENOTDIR")  # nothing was made, nor could be
SHIM = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void record(const char *call, const char *whom, int port) {
    char line[400];
    const char *form = "%d %s(inet_addr(\"%s\"), sin_port=htons(%d))\n";
    const char *log = getenv("TRACE_LOG");
    if (!log) return;
    int length = snprintf(line, sizeof line, form, getpid(), call, whom, port);
    int file = open(log, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(file, line, length) < 0) abort();
    close(file);
}
static void note(const char *call, const struct sockaddr *to) {
    char ip[64];
    if (!to || (to->sa_family != AF_INET && to->sa_family != AF_INET6)) return;
    const struct sockaddr_in *four = (const void *)to;
    const struct sockaddr_in6 *six = (const void *)to;
    const void *raw = to->sa_family == AF_INET ? (void *)&four->sin_addr : (void *)&six->sin6_addr;
    record(call, inet_ntop(to->sa_family, raw, ip, sizeof ip), ntohs(four->sin_port));
}
int connect(int s, const struct sockaddr *to, socklen_t n) {
    note("connect", to);
    return REAL(connect)(s, to, n);
}
int bind(int s, const struct sockaddr *to, socklen_t n) {
    note("bind", to);
    return REAL(bind)(s, to, n);
}
ssize_t sendto(int s, const void *b, size_t l, int f, const struct sockaddr *to, socklen_t n) {
    note("sendto", to);
    return REAL(sendto)(s, b, l, f, to, n);
}
ssize_t sendmsg(int s, const struct msghdr *m, int f) {
    note("sendmsg", m->msg_name);
    return REAL(sendmsg)(s, m, f);
}
int getaddrinfo(const char *name, const char *s, const struct addrinfo *h, struct addrinfo **a) {
    struct in6_addr raw;
    if (name && inet_pton(AF_INET, name, &raw) != 1 && inet_pton(AF_INET6, name, &raw) != 1)
        record("getaddrinfo", name, 53);
    return REAL(getaddrinfo)(name, s, h, a);
}
"""


@functools.cache
def strace_works() -> bool:
    """Whether strace is here and the kernel lets it trace."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    )


class Trace:
    """The records of the commands run under it, in a folder of its own."""

    sees_files = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def wrapped(self, argv: Sequence[str], env: dict[str, str], cwd: Path) -> dict:
        """What subprocess is to be called with."""
        raise NotImplementedError

    def lines(self) -> list[tuple[str, str]]:
        """(system call, rest of the line) of all that was recorded, interrupted ones joined."""
        found, open_calls = [], {}
        for path in sorted(self.folder.glob("*.trace")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if match := RESUMED.match(line):
                    call, begun = open_calls.pop(match[1], ("", ""))
                    found.append((call, begun + match[2]))
                elif match := CALL.match(line):
                    if match[3].endswith(CUT):
                        open_calls[match[1]] = (match[2], match[3].removesuffix(CUT))
                    else:
                        found.append((match[2], match[3]))
        return found + list(open_calls.values())

    def outgoing(self) -> list[str]:
        """Calls that mean another machine, and all that ask for a name."""
        return [f"{call}({rest}" for call, rest in self.lines() if leaves(call, rest)]

    def made(self) -> set[Path]:
        """Files, folders and links made by any process, those that are gone again too."""
        return {
            Path(path)
            for call, rest in self.lines()
            if call in MAKES and (call[:4] != "open" or "O_CREAT" in rest)
            if not any(error in rest for error in HARMLESS)
            for path in [last_path(rest)]
        }


def leaves(call: str, rest: str) -> bool:
    """Whether a call means another machine or asks for the address of a name."""
    if call not in ADDRESSED:
        return NAME_SERVICE in rest
    hosts = [four or six for four, six in ADDRESS.findall(rest)]
    elsewhere = [host for host in hosts if host != "::1" and not host.startswith("127.")]
    return bool(elsewhere) or "53" in PORT.findall(rest)


def last_path(rest: str) -> str:
    """The path a call makes: the last one it names, absolute where strace tells the folder."""
    path = TEXT.findall(rest)[-1].encode("latin-1", "replace").decode("unicode_escape")
    path = path.encode("latin-1").decode("utf-8", "surrogateescape")
    folder = re.findall(r"<([^<>]*)>, \"", rest)
    return str(Path(folder[-1] if folder else "", path))


class Strace(Trace):
    """By strace."""

    sees_files = True

    def wrapped(self, argv: Sequence[str], env: dict[str, str], cwd: Path) -> dict:
        log = self.folder / f"{len(list(self.folder.iterdir()))}.trace"
        log.touch()
        calls = ",".join((*ADDRESSED[:-1], *MAKES))  # getaddrinfo is no system call
        tracer = ["strace", "-f", "-qq", "-y", "--seccomp-bpf", "-s", "4096", "-o", str(log)]
        return {"args": [*tracer, "-e", f"trace={calls}", *argv], "env": env, "cwd": cwd}


class Shim(Trace):
    """By LD_PRELOAD."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        source, self.library = folder / "shim.c", folder / "shim.so"
        source.write_text(SHIM, encoding="utf-8")
        made = ["-shared", "-fPIC", "-w", str(source), "-o", str(self.library), "-ldl"]
        subprocess.run([shutil.which("cc") or "gcc", *made], check=True)

    def wrapped(self, argv: Sequence[str], env: dict[str, str], cwd: Path) -> dict:
        log = {"TRACE_LOG": str(self.folder / "all.trace"), "LD_PRELOAD": str(self.library)}
        return {"args": list(argv), "env": env | log, "cwd": cwd}
