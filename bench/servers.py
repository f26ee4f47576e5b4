"""What the two servers cost under the same load."""

from contextlib import ExitStack

from harness import CYRBK, CYRUS, Server, Workspace


def _cost(report):
    return (report["elapsed_ns"] / 1e9, report["server_cpu_ns"] / 1e9, None)


def _pairs(plan, programs, root, table, label, name, each):
    """Runs `each(server, round)` against fresh stores, both makers in turns: a row."""
    with Server(Workspace(programs, root, f"{name}-real"), CYRUS) as real, \
            Server(Workspace(programs, root, f"{name}-ours"), CYRBK) as ours, \
            table.figure(label) as figure:
        # A first round that does not count: programs and files are read from disk.
        for number in range(plan.rounds + 1):
            if figure.is_over(plan.cap):
                break
            for server in (real, ours):
                report = each(server, number)
                if number > 0:
                    figure.add(server.maker, _cost(report))
    for server in (real, ours):
        server.workspace.remove()


def _ingest(plan, server, number, users, connections, *words):
    return server.load(
        "ingest", "--name", f"r{number}u", "--users", users, "--connections", connections,
        *words, mail=plan.mail, compress=plan.compress)


def ingest(plan, programs, root, table):
    """First replication of new users over one and over two connections."""
    for connections in (1, 2):
        label = f"ingest, {connections} connection(s)"
        _pairs(plan, programs, root, table, label, "ingest", lambda server, number: _ingest(
            plan, server, number, 4, connections, "--messages", plan.ingest_messages // 4))


def large_mailbox(plan, programs, root, table):
    """One mailbox of very many messages."""
    messages = plan.mailbox_messages
    label = f"ingest, {messages} messages in one mailbox"
    _pairs(plan, programs, root, table, label, "mailbox", lambda server, number: _ingest(
        plan, server, number, 1, 1, "--folders", 1, "--messages", messages))


def trickle(plan, programs, root, table):
    """One new message at a time, into backups that cyrbk has written. First cyrbk alone, with a
    server for each size, all of them in turn message by message. Then, unless that is not wanted,
    the real backupd goes on with one backup, and cyrbk with another one."""
    with ExitStack() as servers:
        workspaces = []
        for size in plan.sizes:
            workspace = Workspace(programs, root, f"trickle-{size}")
            fill(plan, workspace, size, ("mine0",) if plan.without_real else ("mine0", "theirs0"))
            workspaces.append(workspace)
        running = [servers.enter_context(Server(workspace, CYRBK)) for workspace in workspaces]
        _growth(plan, running, table)
    for size, workspace in zip(plan.sizes, workspaces):
        if not plan.without_real:
            _beside_the_real_one(plan, workspace, size, table)
        workspace.remove()


def _growth(plan, servers, table):
    """How cyrbk's cost of one new message grows with what is stored."""
    if len(servers) < 2:
        return
    addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    pids = ",".join(str(server.process.pid) for server in servers)
    turns = [[] for _ in servers]
    try:
        for report in servers[0].turns(
                "--servers", addresses, "--pids", pids, "--name", "mine0",
                "--rounds", plan.growth_rounds, "--unverified", mail=plan.mail):
            turns[report["server"]].append((report["elapsed_ns"] / 1e9, report["cpu_ns"] / 1e9))
    finally:
        low = plan.sizes[0]
        for size, runs in list(zip(plan.sizes, turns))[1:]:
            label = f"cyrbk's own: new message, {size} MB / {low} MB"
            table.growth(label, turns[0], runs)


def _beside_the_real_one(plan, workspace, size, table):
    """Message after message, and with another user's in between, so that each backup is opened
    and closed each time."""
    with Server(workspace, CYRUS) as real, Server(workspace, CYRBK) as ours:
        for label, others in (("", ()), (" in turn", ("other",))):
            with table.figure(f"one new message{label}, {size} MB stored") as figure:
                for number in range(plan.rounds + 1):
                    if figure.is_over(plan.cap):
                        break
                    for server, user in ((real, "theirs0"), (ours, "mine0")):
                        users = (user, *(server.maker + other for other in others))
                        # The real one hashes all that is stored for each message.
                        few = server is real and size >= 100
                        messages = 3 if few else plan.trickle_messages
                        report = server.load(
                            "trickle", "--name", ",".join(users), "--rounds", messages,
                            mail=[*plan.mail, "--seed", 1000 + number + 100 * len(others)],
                            compress=plan.compress)
                        if number > 0:
                            cpu = report["server_cpu_ns"] / 1e9 / messages
                            figure.add(server.maker, (report["median_ns"] / 1e9, cpu, None))


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
