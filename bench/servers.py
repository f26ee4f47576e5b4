"""What the two servers cost under the same load."""

from harness import CYRBK, CYRUS, Server, Workspace


def _cost(report, name="elapsed_ns"):
    return (report[name] / 1e9, report["server_cpu_ns"] / 1e9, None)


def _pairs(plan, programs, root, name, each):
    """Runs `each(server, round)` against fresh stores, both makers in turns."""
    with Server(Workspace(programs, root, f"{name}-real"), CYRUS) as real, \
            Server(Workspace(programs, root, f"{name}-ours"), CYRBK) as ours:
        results = {CYRUS: [], CYRBK: []}
        # A first round that does not count: programs and files are read from disk.
        for number in range(plan.rounds + 1):
            for server in (real, ours):
                report = each(server, number)
                if number > 0:
                    results[server.maker].append(_cost(report))
    for server in (real, ours):
        server.workspace.remove()
    return results[CYRUS], results[CYRBK]


def _ingest(plan, server, number, users, connections, *words):
    return server.load(
        "ingest", "--name", f"r{number}u", "--users", users, "--connections", connections,
        *words, mail=plan.mail, compress=plan.compress)


def ingest(plan, programs, root, table):
    """First replication of new users over one and over two connections."""
    for connections in (1, 2):
        pairs = _pairs(plan, programs, root, "ingest", lambda server, number: _ingest(
            plan, server, number, 4, connections, "--messages", plan.ingest_messages // 4))
        table.ratio(f"ingest, {connections} connection(s)", *pairs)


def large_mailbox(plan, programs, root, table):
    """One mailbox of very many messages."""
    messages = plan.mailbox_messages
    pairs = _pairs(plan, programs, root, "mailbox", lambda server, number: _ingest(
        plan, server, number, 1, 1, "--folders", 1, "--messages", messages))
    table.ratio(f"ingest, {messages} messages in one mailbox", *pairs)


def _trickle(plan, server, users, number):
    return server.load("trickle", "--name", ",".join(users), "--rounds", plan.trickle_messages,
                       mail=[*plan.mail, "--seed", 1000 + number], compress=plan.compress)


def trickle(plan, programs, root, table):
    """One new message at a time, into backups that cyrbk has written: the real backupd goes on
    with one of them, cyrbk with another one. First message after message, then with another
    user's in between, so that each backup is opened and closed each time."""
    own = {}
    for size in plan.sizes:
        workspace = Workspace(programs, root, f"trickle-{size}")
        fill(plan, workspace, size, ("mine0", "theirs0"))
        with Server(workspace, CYRUS) as real, Server(workspace, CYRBK) as ours:
            for label, others in (("", ()), (" in turn", ("other",))):
                results = {CYRUS: [], CYRBK: []}
                for number in range(plan.rounds + 1):
                    for server, user in ((real, "theirs0"), (ours, "mine0")):
                        users = (user, *(server.maker + other for other in others))
                        seed = number + 100 * len(others)
                        cost = _cost(_trickle(plan, server, users, seed), "median_ns")
                        if number > 0:
                            results[server.maker].append(cost)
                table.ratio(f"one new message{label}, {size} MB stored", results[CYRUS],
                            results[CYRBK])
                walls = sorted(wall for wall, _, _ in results[CYRBK])
                own[label, size] = walls[plan.rounds // 2]
        workspace.remove()
    low, high = min(plan.sizes), max(plan.sizes)
    for label in ("", " in turn"):
        if low < high:
            ratio = own[label, high] / own[label, low]
            table.single(f"cyrbk's own, {high} MB / {low} MB{label}", ratio)


def fill(plan, workspace, megabytes, users):
    """Backups of about `megabytes` of data file, written by cyrbk in many chunks."""
    with Server(workspace, CYRBK) as server:
        # What is left of mail depends on the mail: a first million octets shows it.
        server.load("ingest", "--name", "probe", "--users", 1, "--octets", 1_000_000,
                    "--unverified", mail=plan.mail)
        share = workspace.files("probe0")[0].stat().st_size / 1_000_000
        for user in users:
            server.load("ingest", "--name", user.rstrip("0"), "--users", 1, "--portions", 50,
                        "--octets", int(megabytes * 1_000_000 / share), "--unverified",
                        mail=plan.mail)


def idle(plan, programs, root, table):
    """What a connection costs that says nothing."""
    octets = {}
    for maker, count in ((CYRUS, plan.idle_connections), (CYRBK, plan.idle_connections * 10)):
        workspace = Workspace(programs, root, f"idle-{maker}")
        with Server(workspace, maker) as server:
            report = server.load("idle", "--connections", count, "--pid", server.process.pid)
        octets[maker] = report["each_octets"]
        workspace.remove()
    table.single("memory of an idle connection", octets[CYRUS] / max(octets[CYRBK], 1))


def disk(plan, programs, root, table):
    """Octets of data file after the same replication, and after compact."""
    octets = {}
    for maker in (CYRUS, CYRBK):
        workspace = Workspace(programs, root, f"disk-{maker}")
        with Server(workspace, maker) as server:
            server.load("ingest", "--name", "big", "--users", 1, "--messages",
                        plan.ingest_messages // 2, "--portions", 4, mail=plan.mail)
            server.load("trickle", "--name", "big0", "--rounds", 200, mail=plan.mail)
        before = workspace.data_octets()
        combine = workspace.write_conf("combine.conf", "backup_compact_minsize: 1000000000\n")
        workspace.tool(maker, "ctl_backups", "-F", "compact", "-u", "big0", conf=combine)
        octets[maker] = before, workspace.data_octets()
        workspace.remove()
    real, ours = octets[CYRUS], octets[CYRBK]
    table.single("data file, same replication", real[0][0] / ours[0][0])
    table.single("index, same replication", real[0][1] / ours[0][1])
    table.single("data file after compact by each", real[1][0] / ours[1][0])
    table.single("cyrbk's data file: before compact / after", ours[0][0] / ours[1][0])
