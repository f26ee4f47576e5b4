//! Requests about several users: a message waits until a mailbox names it, and is not forgotten
//! if the server is killed before that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cyrbk::wire::Guid;

use crate::client::{Client, apply_message, body, guid_of};
use crate::server::Server;
use crate::{Random, disk, setting};

const ROUNDS: usize = 25;
/// Longest time between the log-in and the kill.
const LIFE_MAX_MS: u64 = 150;

fn reserve(users: &[String], guids: &[Guid]) -> Vec<u8> {
    let names: Vec<String> = users.iter().map(|user| format!("user.{user}")).collect();
    let guids: Vec<String> = guids.iter().map(Guid::to_string).collect();
    format!(
        "APPLY RESERVE %(PARTITION default MBOXNAME ({}) GUID ({}))\r\n",
        names.join(" "),
        guids.join(" ")
    )
    .into_bytes()
}

fn get(users: &[String]) -> Vec<u8> {
    let names: Vec<String> = users.iter().map(|user| format!("user.{user}")).collect();
    format!("GET MAILBOXES ({})\r\n", names.join(" ")).into_bytes()
}

fn left_waiting(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.path().join("staging")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Before a server talks to anybody it has taken in what was left. What it opens it sets right.
fn look(port: u16, users: &[String]) {
    let mut client = Client::log_in(port).unwrap();
    client.order(&get(users)).unwrap();
    client.leave().unwrap();
}

/// What the real tool lists.
fn listed(server: &Server, user: &str) -> Option<BTreeSet<String>> {
    let cyr_backup = disk::real_tool("cyr_backup")?;
    let mut command = Command::new("timeout");
    command.arg("60").arg(cyr_backup).arg("-C").arg(server.imapd_conf());
    let output = command.args([user, "list", "messages"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_whitespace().filter(|word| word.len() == 40).map(str::to_owned).collect())
}

#[test]
fn a_message_that_waits_outlives_the_server() {
    let server = Server::new();
    let users = ["tom".to_owned(), "bob".to_owned()];
    let texts = [b"Subject: for bob\r\n\r\n1".to_vec(), b"Subject: for nobody\r\n\r\n2".to_vec()];
    let guids: Vec<Guid> = texts.iter().map(|text| guid_of(text)).collect();
    let running = server.start();
    let mut client = Client::log_in(running.port()).unwrap();
    client.order(&get(&users)).unwrap();
    let missing = client.order(&reserve(&users, &guids)).unwrap();
    assert!(guids.iter().all(|guid| missing.contains(&guid.to_string())), "{missing}");
    client.order(&apply_message(&texts)).unwrap();
    running.kill();
    assert_eq!(left_waiting(&server).len(), 1);

    for _ in 0..2 {
        let running = server.start();
        look(running.port(), &users);
        assert_eq!(left_waiting(&server), Vec::<String>::new());
        assert_eq!(disk::messages(&server, "tom"), guids.iter().copied().collect());
        assert_eq!(disk::messages(&server, "bob"), BTreeSet::new());
        running.kill();
    }
    if let Some(listed) = listed(&server, "tom") {
        assert_eq!(listed, guids.iter().map(Guid::to_string).collect());
    }
}

/// What was acknowledged: to whom a message was given, if to anybody.
type Acknowledged = BTreeMap<Guid, Option<usize>>;

/// Sends messages for several users, and names some of them, until the server is gone.
fn load(
    mut client: Client,
    users: &[String],
    acknowledged: &mut Acknowledged,
    mut random: Random,
) -> io::Result<()> {
    let mut given: Vec<Vec<(Guid, usize)>> = vec![Vec::new(); users.len()];
    loop {
        client.order(&get(users))?;
        for _ in 0..random.below(3) + 1 {
            let bodies: Vec<Vec<u8>> = (0..random.below(4) + 1)
                .map(|_| {
                    let len = if random.below(12) == 0 { 400_000 } else { 3_000 };
                    body(&users[0], &mut random, len)
                })
                .collect();
            let guids: Vec<Guid> = bodies.iter().map(|body| guid_of(body)).collect();
            client.order(&reserve(users, &guids))?;
            client.order(&apply_message(&bodies))?;
            acknowledged.extend(guids.iter().map(|guid| (*guid, None)));
            let whose = random.below(4) as usize;
            if whose < users.len() {
                let sizes = guids.iter().copied().zip(bodies.iter().map(Vec::len));
                given[whose].extend(sizes);
                // It may be stored, whether it is acknowledged or not.
                guids.iter().for_each(|guid| {
                    acknowledged.insert(*guid, Some(whose));
                });
                client.order(&mailbox(&users[whose], &given[whose]))?;
            }
        }
        if random.below(2) == 0 {
            client.order(b"RESTART\r\n")?;
        }
    }
}

fn mailbox(user: &str, messages: &[(Guid, usize)]) -> Vec<u8> {
    let record = |(i, (guid, size)): (usize, &(Guid, usize))| {
        format!(
            "%(UID {} MODSEQ 1 LAST_UPDATED 1700000000 FLAGS () INTERNALDATE 1600000000 \
             SIZE {size} GUID {guid})",
            i + 1
        )
    };
    let records: Vec<String> = messages.iter().enumerate().map(record).collect();
    format!(
        "APPLY MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} SYNC_CRC 0 LAST_UID {} \
         HIGHESTMODSEQ 1 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 \
         UIDVALIDITY 7 PARTITION default ACL \"\" OPTIONS P RECORD ({}))\r\n",
        messages.len(),
        records.join(" ")
    )
    .into_bytes()
}

#[test]
fn messages_that_wait_outlive_a_server_that_is_killed_at_any_time() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = setting("CYRBK_CRASH_SEED", now % 1_000_000);
    eprintln!("CYRBK_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let server = Server::new();
    let (mut count, mut unnamed, mut had_waiting) = (0, 0, 0);
    for round in 0..ROUNDS {
        let users = [format!("tom{round}"), format!("bob{round}")];
        let running = server.start();
        let client = Client::log_in(running.port()).unwrap();
        let seed = random.below(1 << 40);
        let names = users.clone();
        let client = thread::spawn(move || {
            let mut acknowledged = Acknowledged::new();
            // It ends when the server does.
            let _ = load(client, &names, &mut acknowledged, Random::new(seed));
            acknowledged
        });
        thread::sleep(Duration::from_micros(random.below(LIFE_MAX_MS * 1_000)));
        running.kill();
        let acknowledged = client.join().unwrap();
        had_waiting += left_waiting(&server).len();
        // Another one may die while it takes them in.
        if round % 2 == 0 {
            server.start().kill();
        }
        let running = server.start();
        look(running.port(), &users);
        assert_eq!(left_waiting(&server), Vec::<String>::new());
        let found = users.each_ref().map(|user| disk::messages(&server, user));
        for (guid, whose) in &acknowledged {
            let places: Vec<usize> = (0..2).filter(|at| found[*at].contains(guid)).collect();
            match whose {
                // In the first one, if the line that names it did not come in time.
                Some(whose) => assert!(places == [*whose] || places == [0], "{guid}: {places:?}"),
                None => assert_eq!(places, [0], "{guid}"),
            }
        }
        count += acknowledged.len();
        unnamed += acknowledged.values().filter(|whose| whose.is_none()).count();
        running.stop();
    }
    eprintln!("{count} messages, {unnamed} never named; {had_waiting} files were taken in");
    assert!(count > ROUNDS && unnamed > 0 && had_waiting > 0);
    disk::run(&server, "verify", &[]);
    disk::check_with_cyrus(&server, false);
}
