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
    """All mailboxes of a user who is not on the mail server: wall clock of the whole, CPU time and
    memory of the tool alone. First to the real mail server, each time another user; then to one
    that costs nothing."""
    rounds, messages = plan.rounds + 1, plan.restore_messages
    workspace = Workspace(programs, root, "restore")
    with Server(workspace, CYRBK) as server:
        server.load("ingest", "--name", "user", "--users", 2 * rounds, "--messages", messages,
                    "--unverified", mail=plan.mail)
    conf = workspace.write_conf(
        "restore.conf", f"sync_authname: {ADMIN}\nsync_password: {PASSWORD}\n"
        f"sync_realm: {REALM}\nsync_try_imap: no\n")

    def run(maker, server, user, mode):
        words = ["restore", "-a", "-P", "default", server, user]
        cost = workspace.tool(maker, *words, conf=conf, timeout=plan.timeout(), mode=mode)
        if cost is None:
            raise SystemExit(f"{maker}: restore does not end")
        return cost

    there = _mail_server(programs, root)
    with MailServer(there, CYRUS) as mail_server:
        address = f"127.0.0.1:{mail_server.port}"

        def to_mail_server(maker, user):
            before = _count(there)
            cost = run(maker, address, user, "measure")
            if _count(there) - before != messages:
                raise SystemExit(f"{maker}: messages are missing in {user}")
            return cost

        _rounds(plan, table, f"restore of {messages} messages", to_mail_server)
    there.remove()
    _rounds(plan, table, "the same, to a server that costs nothing",
            lambda maker, user: run(maker, "SERVER", user, "restore"))
    workspace.remove()


def _rounds(plan, table, label, each):
    with table.figure(label) as figure:
        # The first round warms up.
        for number in range(plan.rounds + 1):
            if figure.is_over(plan.cap):
                break
            for turn, maker in enumerate((CYRUS, CYRBK)):
                cost = each(maker, f"user{2 * number + turn}")
                if number > 0:
                    figure.add(maker, cost)


def _count(workspace):
    """Messages on the mail server."""
    return sum(1 for path in (workspace.path / MAILBOXES).rglob("[0-9]*.") if path.is_file())
