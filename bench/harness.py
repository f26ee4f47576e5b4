"""Workspaces, servers and tools of either maker, and what running them cost."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ADMIN, PASSWORD, REALM = "admin", "secret", "bench.example.test"
PROGRAM_DIRS = ["/usr/lib/cyrus/bin", "/usr/libexec/cyrus-imapd", "/usr/cyrus/bin", "/usr/sbin"]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C"}
START_SECONDS = 30
CYRUS, CYRBK = "cyrus", "cyrbk"


class Programs:
    """Where everything is."""

    def __init__(self, cyrbk, load, links):
        self.cyrbk, self.load = Path(cyrbk), Path(load)
        found = [Path(d) for d in PROGRAM_DIRS if (Path(d) / "backupd").is_file()]
        if not found:
            raise SystemExit("the real backupd is not installed (Debian: cyrus-imapd)")
        self.real = found[0]
        self.user = pwd.getpwnam("cyrus")
        self.links = Path(links)
        for tool in ("ctl_backups", "cyr_backup", "restore"):
            (self.links / tool).symlink_to(self.cyrbk)

    def tool(self, maker, name):
        return (self.real if maker == CYRUS else self.links) / name


def _report(command, timeout=None):
    """Runs the load driver; its report as a dict, or `None` if it had to be stopped."""
    child = subprocess.Popen([str(word) for word in command], env=ENVIRONMENT, cwd="/", text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return None
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {err}")
    return _words(out)


class Workspace:
    """A store with its configuration, that servers and tools of both makers can use."""

    def __init__(self, programs, root, name):
        self.programs, self.path = programs, Path(root) / name
        self.path.mkdir()
        self.own(self.path)
        for part in ("conf", "tmp", "one", "staging"):
            (self.path / part).mkdir()
            self.own(self.path / part)
        self.conf = self.write_conf("imapd.conf", "")
        self.add_accounts()

    def write_conf(self, name, more):
        root = self.path
        path = root / name
        path.write_text(
            f"configdirectory: {root}/conf\ntemp_path: {root}/tmp\nadmins: {ADMIN}\n"
            f"servername: {REALM}\nvirtdomains: off\nallowplaintext: yes\n"
            f"sasl_mech_list: PLAIN\nsasl_pwcheck_method: auxprop\n"
            f"sasl_auxprop_plugin: sasldb\nsasl_sasldb_path: {root}/sasldb2\n"
            f"backuppartition-one: {root}/one\nbackup_staging_path: {root}/staging\n"
            f"partition-default: {root}/tmp\n"
            "cyrbk_max_connections: 20000\ncyrbk_max_connections_per_address: 20000\n" + more
        )
        self.own(path)
        return path

    def own(self, path):
        os.chown(path, self.programs.user.pw_uid, self.programs.user.pw_gid)

    def add_accounts(self):
        sasldb = self.path / "sasldb2"
        subprocess.run(
            ["/usr/sbin/saslpasswd2", "-p", "-c", "-u", REALM, "-f", sasldb, ADMIN],
            input=PASSWORD.encode(), check=True, env=ENVIRONMENT,
        )
        self.own(sasldb)
        subprocess.run(
            [self.programs.cyrbk, "passwd", "-C", self.conf, ADMIN],
            input=f"{PASSWORD}\n".encode(), check=True, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def tool(self, maker, name, *words, conf=None, timeout=None, mode="measure"):
        """Runs a tool on this store: (wall, CPU seconds, peak resident octets), or `None`. In the
        mode `restore` the load driver is the server that it restores to."""
        command = [self.programs.load, mode, "--", self.programs.tool(maker, name),
                   "-C", conf or self.conf, *words]
        report = _report(command, timeout)
        if report is None:
            return None
        return report["elapsed_ns"] / 1e9, report["cpu_ns"] / 1e9, report["peak_octets"]

    def files(self, user):
        """The data file of a user, and its index."""
        for path in (self.path / "one").rglob(f"{user}_??????"):
            return path, path.with_name(path.name + ".index")
        raise SystemExit(f"{user} has no backup")

    def data_octets(self):
        """Octets of all data files, and of all indexes."""
        paths = [path for path in (self.path / "one").rglob("*") if path.is_file()]
        index = sum(path.stat().st_size for path in paths if path.suffix == ".index")
        return sum(path.stat().st_size for path in paths) - index, index

    def save(self, user):
        """Copies a user's backup aside, for [`Workspace.put_back`]."""
        for path in self.files(user):
            shutil.copyfile(path, self.path / (path.name + ".saved"))

    def put_back(self, user):
        """The same files with the saved content."""
        for path in self.files(user):
            path.write_bytes(b"")
            shutil.copyfile(self.path / (path.name + ".saved"), path)
            for rest in path.parent.glob(path.name + ".*"):
                if rest.suffix != ".index" and rest.name.startswith(path.name + "."):
                    rest.unlink()

    def remove(self):
        shutil.rmtree(self.path)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """A running backup server. Use it in a `with` statement."""

    def __init__(self, workspace, maker):
        self.workspace, self.maker, self.port = workspace, maker, free_port()
        log = open(workspace.path / f"{maker}.log", "wb")
        self.process = subprocess.Popen(
            [str(word) for word in self.command()], env=ENVIRONMENT, cwd="/", stdout=log,
            stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )
        log.close()

    def command(self):
        workspace = self.workspace
        if self.maker == CYRUS:
            return self.under_master("backupd")
        return [workspace.programs.cyrbk, "serve", "-C", workspace.conf,
                "--listen", f"127.0.0.1:{self.port}"]

    def under_master(self, program):
        """The real master, with one program as its only service."""
        workspace, root = self.workspace, self.workspace.path
        cyrus_conf = root / "cyrus.conf"
        cyrus_conf.write_text(
            "START {\n}\nSERVICES {\n"
            f'  service cmd="{program} -C {workspace.conf}" listen="127.0.0.1:{self.port}" '
            "prefork=0 proto=tcp4\n}\nEVENTS {\n}\n"
        )
        return [workspace.programs.real / "master", "-C", workspace.conf, "-M", cyrus_conf,
                "-p", root / "conf/master.pid", "-D"]

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                    sock.settimeout(5)
                    if sock.recv(1):
                        return self
            except OSError:
                if time.monotonic() > deadline:
                    self.__exit__()
                    log = (self.workspace.path / f"{self.maker}.log").read_text()
                    raise SystemExit(f"{self.maker} does not start: {log}")
                time.sleep(0.05)

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def cpu(self):
        """CPU seconds of the server and all that it started, so far."""
        ticks = sum(_ticks(pid) for pid in _tree(self.process.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def load(self, mode, *words, mail=(), compress=False):
        """Runs the load driver; its report as a dict, with the server's CPU time."""
        before = self.cpu()
        compressed = ["--compress"] if compress else []
        report = _report([*self._driver(mail), *compressed, mode, *words])
        report["server_cpu_ns"] = int((self.cpu() - before) * 1e9)
        return report

    def _driver(self, mail):
        return [self.workspace.programs.load, "--server", f"127.0.0.1:{self.port}",
                "--user", ADMIN, "--password", PASSWORD, *mail]

    def turns(self, *words, mail=()):
        """Runs the load driver for several servers; its reports as they come. """
        command = [str(word) for word in (*self._driver(mail), "turns", *words)]
        child = subprocess.Popen(command, env=ENVIRONMENT, cwd="/", text=True, bufsize=1,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 start_new_session=True)
        try:
            yield from map(_words, child.stdout)
            if child.wait() != 0:
                raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
        finally:
            child.kill()
            child.wait()


def _words(line):
    return {name: int(value) for name, value in (word.split("=") for word in line.split())}


def _tree(pid):
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:
        return


def _ticks(pid):
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    # utime, stime, and both of the children that have ended.
    return sum(int(word) for word in words[11:15])
