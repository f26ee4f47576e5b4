"""What bringing mail back costs: both makers' `restore`, from stores that cyrbk has written to a
real mail server."""

from harness import ADMIN, CYRBK, CYRUS, PASSWORD, REALM, Server, Workspace

MAILBOXES = "spool"


class MailServer(Server):
    """The real `sync_server`, with mailboxes of its own."""

    def command(self):
        return self.under_master("sync_server")


def _mail_server(programs, root):
    workspace = Workspace(programs, root, "restore-to")
    spool = workspace.path / MAILBOXES
    spool.mkdir()
    workspace.own(spool)
    text = workspace.conf.read_text()
    own = f"partition-default: {workspace.path}/tmp"
    workspace.conf.write_text(text.replace(own, f"partition-default: {spool}"))
    return workspace


def restore(plan, programs, root, table):
    """All mailboxes of a user who is not on the mail server, each time of another user: wall clock
    of the whole, CPU time and memory of the tool alone."""
    rounds, messages = plan.rounds + 1, plan.restore_messages
    workspace = Workspace(programs, root, "restore")
    with Server(workspace, CYRBK) as server:
        server.load("ingest", "--name", "user", "--users", 2 * rounds, "--messages", messages,
                    "--unverified", mail=plan.mail)
    conf = workspace.write_conf(
        "restore.conf", f"sync_authname: {ADMIN}\nsync_password: {PASSWORD}\n"
        f"sync_realm: {REALM}\nsync_try_imap: no\n")
    there = _mail_server(programs, root)
    with MailServer(there, CYRUS) as mail_server, \
            table.figure(f"restore of {messages} messages") as figure:
        address = f"127.0.0.1:{mail_server.port}"
        for number in range(rounds):
            if figure.is_over(plan.cap):
                break
            for turn, maker in enumerate((CYRUS, CYRBK)):
                user = f"user{2 * number + turn}"
                words = ["restore", "-a", "-P", "default", address, user]
                before = _count(there)
                cost = workspace.tool(maker, *words, conf=conf, timeout=plan.timeout)
                if cost is None:
                    raise SystemExit(f"{maker}: restore does not end")
                if _count(there) - before != messages:
                    raise SystemExit(f"{maker}: messages are missing in {user}")
                # The first round warms up.
                if number > 0:
                    figure.add(maker, cost)
    there.remove()
    workspace.remove()


def _count(workspace):
    """Messages on the mail server."""
    return sum(1 for path in (workspace.path / MAILBOXES).rglob("[0-9]*.") if path.is_file())
