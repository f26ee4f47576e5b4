//! How fast `verify` is, beside the real one. Not run unless asked for:
//! `cargo test --release --test golden_tools -- --ignored --nocapture speed`.

use std::path::Path;
use std::time::Instant;

use cyrbk::store::staging::Staging;
use cyrbk::store::{Catalog, Line, Writer};
use cyrbk::wire::Body;
use cyrbk::wire::apply::Apply;
use cyrbk::wire::dlist::parse_item;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::damage::guid;
use crate::live::TOOLS;
use crate::site::Site;

const CHUNKS: u32 = 60;
const MESSAGES_IN_CHUNK: u32 = 340;

/// Text of about 5 KB that compresses about as mail does.
fn message(number: u32) -> Vec<u8> {
    let mut text = format!("Subject: message {number}\r\nMessage-Id: <{number}@x>\r\n\r\n");
    let mut state = u64::from(number) | 1 << 40;
    while text.len() < 3_000 + (number % 5) as usize * 1_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = state >> 40;
        text += if word % 7 == 0 { "the quick brown fox " } else { "" };
        text += &format!("{:x}{}", word % 0xffff, if word % 11 == 0 { "\r\n" } else { " " });
    }
    text.into_bytes()
}

fn append(writer: &mut Writer, staging: &Staging, ts: i64, text: &[u8], at: &[usize], of: &[Body]) {
    let (name, value) = parse_item(text).unwrap();
    let apply = Apply::read(&name, &value).unwrap();
    writer.append(ts, &Line { text, body_at: at, bodies: of, apply: &apply }, staging).unwrap();
}

/// A backup of some 100 MB of text, in many chunks.
pub(crate) fn large(site: &Site, user: &str) {
    let path = site.path().join("one").join(user);
    let staging = Staging::new(site.path().join("staging"));
    for chunk in 0..CHUNKS {
        let ts = 1_795_000_000 + i64::from(chunk);
        let mut writer = Writer::open(&path, ts).unwrap();
        let (mut text, mut at, mut bodies) = (b"MESSAGE (".to_vec(), Vec::new(), Vec::new());
        let mut records = Vec::new();
        for i in 0..MESSAGES_IN_CHUNK {
            let number = chunk * MESSAGES_IN_CHUNK + i;
            let octets = message(number);
            let (id, size) = (guid(&octets), octets.len());
            if i > 0 {
                text.push(b' ');
            }
            text.extend(format!("%{{default {id} {size}}}\r\n").into_bytes());
            at.push(text.len());
            bodies.push(Body::Memory(octets));
            let uid = number + 1;
            records.push(format!(
                "%(UID {uid} MODSEQ {uid} LAST_UPDATED {ts} FLAGS (\\Seen) INTERNALDATE {ts} SIZE \
                 {size} GUID {id})"
            ));
        }
        text.push(b')');
        append(&mut writer, &staging, ts, &text, &at, &bodies);
        let last = (chunk + 1) * MESSAGES_IN_CHUNK;
        let line = format!(
            "MAILBOX %(UNIQUEID u1 MBOXNAME user.{user} LAST_UID {last} HIGHESTMODSEQ {last} \
             RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION \
             default ACL \"\" OPTIONS P RECORD ({}))",
            records.join(" ")
        );
        append(&mut writer, &staging, ts, line.as_bytes(), &[], &[]);
        writer.finish(ts).unwrap();
    }
    Catalog::open(site.path().join("conf/backups.db")).set(user.as_bytes(), &path).unwrap();
}

/// Seconds of all processes that have ended.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

#[test]
#[ignore = "takes a minute, and says something only in release"]
fn verify_speed_beside_the_real_one() {
    let site = Site::empty();
    large(&site, "large");
    let site = site.give_to("cyrus");
    let stat = site.ours("ctl_backups", &["stat", "large"]).out_text();
    let plain: f64 = stat.split('\t').nth(2).unwrap().trim().parse().unwrap();
    // Seconds of the processors: others may use the machine too.
    let time = |words: &[&str], program: &Path| {
        let started = (Instant::now(), cpu());
        let mut command = site.command(program);
        let ran = command.arg("-C").arg(site.conf()).args(words).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {ran:?}");
        let (wall, cpu) = (started.0.elapsed().as_secs_f64(), cpu() - started.1);
        let speed = plain / 1e6 / cpu;
        println!("{program:?} {words:?}: {wall:.2} s, {cpu:.2} s of CPU, {speed:.1} MB/s");
        cpu
    };
    let ours = site.path().join("bin/ctl_backups");
    let rounds: Vec<[f64; 3]> = (0..3)
        .map(|_| {
            [
                time(&["verify", "large"], &ours),
                time(&["verify", "--deep", "large"], &ours),
                time(&["verify", "--deep", "--jobs=1", "large"], &ours),
            ]
        })
        .collect();
    let best = |i: usize| rounds.iter().map(|times| times[i]).fold(f64::MAX, f64::min);
    let real = Path::new(TOOLS).join("ctl_backups");
    if real.exists() {
        let real = time(&["verify", "large"], &real);
        for (i, what) in ["verify", "--deep", "--deep --jobs=1"].iter().enumerate() {
            println!("{what}: {:.0} times as fast", real / best(i));
        }
    }
}
