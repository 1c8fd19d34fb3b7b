"""Runs the command of the package's unit in a root, with the user, limits and variables that the unit names, and listens as systemd
does: it must say that it is ready, that it is alive, that it reads its settings again, and that it stops.

    unit.py ROOT first|again    # `again`: what the first run has stored must be there

In a name space of networks of its own, so that the usual ports are free."""

import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

PATIENCE = 60
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
WATCHDOG_SECONDS = 3


def read_unit(path):
    """The settings of a unit, the last of each name; none of ours continues over a line."""
    lines = (line.strip() for line in open(path))
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def size(text):
    return int(text[:-1]) * SIZES[text[-1]] if text[-1] in SIZES else int(text)


def loopback_up():
    """SIOCSIFFLAGS with IFF_UP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))


def variables(path):
    lines = (line.strip() for line in open(path))
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Unit:
    def __init__(self, root):
        self.root = root
        self.unit = read_unit(root + "/usr/lib/systemd/system/turbopump.service")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        path = root + "/run/notify"
        if os.path.exists(path):
            os.remove(path)
        self.socket.bind(path)
        os.chmod(path, 0o666)
        self.told = []

    def start(self):
        # By the root's own list of users.
        with open(self.root + "/etc/passwd") as users:
            entry = next(line.split(":") for line in users if line.startswith(self.unit["User"] + ":"))
        user, group = int(entry[2]), int(entry[3])

        def become():
            os.chroot(self.root)
            os.chdir(self.unit["WorkingDirectory"])
            os.umask(int(self.unit["UMask"], 8))
            for limit, name in ((resource.RLIMIT_MEMLOCK, "LimitMEMLOCK"), (resource.RLIMIT_NOFILE, "LimitNOFILE")):
                wanted = size(self.unit[name])
                # A container may not let root raise a limit; the unit's is the most that counts.
                most = resource.getrlimit(limit)[1]
                wanted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
                resource.setrlimit(limit, (wanted, wanted))
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        environment = variables(self.root + self.unit["EnvironmentFile"].lstrip("-"))
        environment |= {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
        self.process = subprocess.Popen(self.unit["ExecStart"].split(), preexec_fn=become, env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait_for(self, word):
        """Reads until a word was told, in this datagram or in a later one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except TimeoutError:
                break
            self.told += lines
            if any(line == word or line.startswith(word + "=") for line in lines):
                return
        self.process.kill()
        sys.exit(f"`{word}` was not told, but {self.told}:\n{self.process.communicate()[0]}")

    def turbopump(self, *words, text=None):
        """A command, as a user who is nobody in particular."""
        def become():
            os.chroot(self.root)
            os.chdir("/")
            os.setgid(65534)
            os.setuid(65534)

        done = subprocess.run(["/usr/bin/turbopump", *words], preexec_fn=become, env={}, input=text, text=True,
                              capture_output=True, timeout=PATIENCE)
        if done.returncode != 0:
            self.process.kill()
            sys.exit(f"turbopump {' '.join(words)}: {done.stderr}\n{self.process.communicate()[0]}")
        return done.stdout


def main():
    root, run = sys.argv[1:]
    loopback_up()
    unit = Unit(root)
    unit.start()
    unit.wait_for("READY=1")
    status = open(f"/proc/{unit.process.pid}/status").read()
    runs_as = int(status.split("Uid:")[1].split()[0])
    assert runs_as != 0, "it runs as root"
    if run == "first":
        unit.turbopump("topic", "create", "orders")
        unit.turbopump("produce", "orders", text="three apples\n")
    found = unit.turbopump("consume", "orders", "--count", "1")
    assert found == "three apples\n", found
    unit.wait_for("WATCHDOG=1")
    unit.process.send_signal(signal.SIGHUP)
    unit.wait_for("RELOADING=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in unit.told), unit.told
    unit.wait_for("READY=1")
    unit.process.send_signal(signal.SIGTERM)
    unit.wait_for("STOPPING=1")
    output, _ = unit.process.communicate(timeout=PATIENCE)
    assert unit.process.returncode == 0, output


if __name__ == "__main__":
    main()
