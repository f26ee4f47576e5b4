//! What the program is at when the power goes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cyrbk::lock::Wait;
use cyrbk::store::backup::index_path;
use cyrbk::store::{Catalog, Writer, delete};

use super::aftermath::{self, Seen, Tally, path_of};
use super::disk::{Names, Node};
use super::outcomes::{Effort, Outcomes, State};
use super::session::{self, Ledger};
use super::trace;
use super::world::World;

/// Users of whom there is only an entry.
const STRANGERS: usize = 120;
const FIXTURES: &str = "tests/fixtures/backups";

/// How much is tried, unless it is all.
const FEW: Tried = Tried { of_a_tool: 30, of_a_server: 120, again: 4, of_those: 10 };
const ALL: Tried =
    Tried { of_a_tool: usize::MAX, of_a_server: usize::MAX, again: 40, of_those: 60 };

/// How many states.
struct Tried {
    of_a_tool: usize,
    of_a_server: usize,
    /// From these the power goes a second time.
    again: usize,
    of_those: usize,
}

/// How tools end: well, or with damage that was found among other things.
const OK: i32 = 0;
const FAILURE: i32 = 75;

/// Fewer states than these mean that nothing was done: it has few to leave.
const LEAST_OF_A_TOOL: usize = 10;
const LEAST_OF_A_SERVER: usize = 60;

/// Each kind of fate once.
const ONCE: Effort = Effort { random: 1, combines_fates: false };

fn is_all() -> bool {
    std::env::var_os("CYRBK_POWERCUT").is_some_and(|what| what == "all")
}

fn tried() -> Tried {
    if is_all() { ALL } else { FEW }
}

/// A backup made by Cyrus, at its place.
fn take_over(world: &World, set: &str, user: &str, name: &str) {
    let letter = &user[..1];
    let path = world.path().join("one").join(letter).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let source = Path::new(FIXTURES).join(set).join(letter).join(name);
    fs::copy(&source, &path).unwrap();
    fs::copy(index_path(&source), index_path(&path)).unwrap();
    Catalog::open(world.catalog()).set(user.as_bytes(), &path).unwrap();
}

/// Runs a tool over what is there, which must have this status, and tries every state.
fn try_tool(name: &str, world: &mut World, user: &str, tool: (&[&str], i32)) {
    let (before, after, states) = run_tool(world, user, tool);
    let check = |world: &World, _: &State, way, tally: &mut Tally| {
        aftermath::check(world, user, (&before, &after), way, tally);
    };
    let tried = try_states(name, world, (&states, tried().of_a_tool), check);
    assert!(tried >= LEAST_OF_A_TOOL, "{name}: {tried} states");
}

/// What the backup had to say before and afterwards, and what a power cut may leave.
fn run_tool(world: &mut World, user: &str, tool: (&[&str], i32)) -> (Seen, Seen, Outcomes) {
    let (words, status) = tool;
    let (nodes, names) = world.look();
    let before = aftermath::look(world, user);
    lay_out(world, &nodes, &names);
    let run = |world: &World, trace: &Path| {
        world.trace_tool(words, &[status], trace);
    };
    let disk = world.record(nodes, names, run);
    let after = aftermath::look(world, user);
    let effort = Effort { random: if is_all() { 6 } else { 1 }, combines_fates: is_all() };
    (before, after, Outcomes::of(disk, effort))
}

/// The power goes once more, while a tool sets right what is left of the first time.
fn try_again(
    name: &str,
    world: &mut World,
    states: &Outcomes,
    tools: &[&[&str]],
    check: impl Fn(&World, &State, usize, &mut Tally),
) {
    let (mut tried_again, mut done) = (0, 0);
    for ((number, state), tool) in states.states(tried().again).zip(tools.iter().cycle()) {
        world.lay_out(&state.names, |node| state.nodes[&node].clone());
        world.aside(|world| {
            let (nodes, names) = world.look();
            // A look may have to refuse.
            let run = |world: &World, trace: &Path| {
                done += usize::from(world.trace_tool(tool, &[OK, FAILURE], trace) == OK);
            };
            let disk = world.record(nodes, names, run);
            let again = Outcomes::of(disk, ONCE);
            let name = format!("{name}, state {number} ({}), then {tool:?}", state.what);
            let some = (&again, tried().of_those);
            let check = |world: &World, _: &State, way, tally: &mut Tally| {
                check(world, &state, way, tally);
            };
            tried_again += try_states(&name, world, some, check);
        });
    }
    assert!(tried_again >= LEAST_OF_A_TOOL && done > 0, "{name}: {tried_again}, {done} done");
}

fn lay_out(world: &mut World, nodes: &[Node], names: &Names) {
    world.lay_out(names, |number| nodes[number].clone());
}

/// Returns how many.
fn try_states(
    name: &str,
    world: &mut World,
    (states, most): (&Outcomes, usize),
    check: impl Fn(&World, &State, usize, &mut Tally),
) -> usize {
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    let mut tried = 0;
    for (number, state) in states.states(most) {
        tried += 1;
        world.lay_out(&state.names, |node| state.nodes[&node].clone());
        let result = catch_unwind(AssertUnwindSafe(|| check(world, &state, tried, &mut tally)));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            failures.push(format!("state {number} ({}): {}", state.what, text.unwrap_or_default()));
            if failures.len() > 10 {
                break;
            }
        }
    }
    eprintln!("{name}: {tried} states, {:?}", tally.0);
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
    tried
}

/// A site with one backup that Cyrus has made; cyrbk has opened it if `is_ours`.
fn site_of(user: &str, is_ours: bool, settings: &str) -> Option<World> {
    if !trace::is_possible() {
        return None;
    }
    let world = World::new(settings);
    let name = match user {
        "carol" => "carol_cesxQB",
        _ => "alice_EPfRmx",
    };
    take_over(&world, "main/one", user, name);
    if is_ours {
        drop(Writer::open(&path_of(&world, user).unwrap(), 0).unwrap());
    }
    Some(world)
}

#[test]
fn compaction_of_what_cyrus_wrote() {
    let Some(mut world) = site_of("carol", false, "") else { return };
    try_tool("compact, Cyrus's", &mut world, "carol", (&["compact", "--force", "carol"], OK));
}

#[test]
fn compaction_that_drops_joins_and_keeps_the_old_pair() {
    let settings = "backup_keep_previous: yes\nbackup_retention: 1s\n\
        backup_compact_minsize: 1000\n";
    let Some(mut world) = site_of("alice", true, settings) else { return };
    try_tool("compact, much", &mut world, "alice", (&["compact", "--force", "alice"], OK));
}

#[test]
fn compaction_of_a_damaged_backup() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    let path = path_of(&world, "carol").unwrap();
    let mut octets = fs::read(&path).unwrap();
    octets[19_000] ^= 1;
    fs::write(&path, octets).unwrap();
    try_tool("compact, damaged", &mut world, "carol", (&["compact", "--force", "carol"], FAILURE));
}

#[test]
fn building_an_index_anew() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    try_tool("reindex", &mut world, "carol", (&["reindex", "carol"], OK));
    let Some(mut world) = site_of("alice", false, "") else { return };
    let index = index_path(&path_of(&world, "alice").unwrap());
    fs::write(index, "what a disk may make of it").unwrap();
    try_tool("reindex, broken", &mut world, "alice", (&["reindex", "alice"], OK));
}

#[test]
fn building_an_index_anew_of_damaged_data() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    let path = path_of(&world, "carol").unwrap();
    let mut octets = fs::read(&path).unwrap();
    octets[19_000] ^= 1;
    fs::write(&path, octets).unwrap();
    try_tool("reindex, damaged", &mut world, "carol", (&["reindex", "carol"], FAILURE));
}

#[test]
fn moving_to_another_partition() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    try_tool("move", &mut world, "carol", (&["move", "carol", "two"], OK));
}

/// What a compaction has left is set right, or is about to be, when the power goes again.
#[test]
fn a_second_power_cut_while_a_compaction_is_completed() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    let (before, after, states) =
        run_tool(&mut world, "carol", (&["compact", "--force", "carol"], OK));
    let tools: [&[&str]; 3] =
        [&["verify", "carol"], &["compact", "--force", "carol"], &["reindex", "carol"]];
    try_again("compact", &mut world, &states, &tools, |world, _, way, tally| {
        aftermath::check(world, "carol", (&before, &after), way, tally);
    });
}

/// The same of a reindex.
#[test]
fn a_second_power_cut_while_an_index_is_completed() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    let (before, after, states) = run_tool(&mut world, "carol", (&["reindex", "carol"], OK));
    let tools: [&[&str]; 3] =
        [&["reindex", "carol"], &["verify", "carol"], &["compact", "--force", "carol"]];
    try_again("reindex", &mut world, &states, &tools, |world, _, way, tally| {
        aftermath::check(world, "carol", (&before, &after), way, tally);
    });
}

/// What a session was doing.
fn run_server(world: &mut World) -> (Ledger, Outcomes) {
    // So many entries that backups.db is packed anew on the way.
    let catalog = Catalog::open(world.catalog());
    for number in 0..STRANGERS {
        let user = format!("stranger{number}");
        catalog.set(user.as_bytes(), &world.path().join("one/s").join(&user)).unwrap();
    }
    let (nodes, names) = world.look();
    let mut ledger = None;
    let disk = world.record(nodes, names, |world, trace| {
        world.trace_server(trace, |address| ledger = Some(session::talk(address)));
    });
    let ledger = ledger.unwrap();
    ledger.fits(&disk);
    let states = Outcomes::of(disk, ONCE);
    (ledger, states)
}

fn check_session(world: &World, ledger: &Ledger, state: &State, way: usize, tally: &mut Tally) {
    session::check(world, ledger, state, way, tally);
    let entries = Catalog::open(world.catalog()).list().unwrap();
    assert_eq!(entries.len(), STRANGERS + session::USERS.len());
}

#[test]
fn a_server_at_work() {
    if !trace::is_possible() {
        return;
    }
    let mut world = World::new("");
    let (ledger, states) = run_server(&mut world);
    let some = (&states, tried().of_a_server);
    let tried = try_states("serve", &mut world, some, |world, state, way, tally| {
        check_session(world, &ledger, state, way, tally);
    });
    assert!(tried >= LEAST_OF_A_SERVER, "{tried} states");
}

#[test]
fn a_second_power_cut_while_a_session_is_set_right() {
    if !trace::is_possible() {
        return;
    }
    let mut world = World::new("");
    let (ledger, states) = run_server(&mut world);
    let tools: [&[&str]; 3] = [
        &["compact", "--force", "--prefix", "tom"],
        &["verify", "--prefix", "tom"],
        &["reindex", "--prefix", "tom"],
    ];
    try_again("serve", &mut world, &states, &tools, |world, state, way, tally| {
        check_session(world, &ledger, state, way, tally);
    });
}

#[test]
fn deletion() {
    let Some(mut world) = site_of("carol", true, "") else { return };
    let (nodes, names) = world.look();
    let words = ["delete", "--force", "carol"];
    let run = |world: &World, trace: &Path| {
        world.trace_tool(&words, &[OK], trace);
    };
    let disk = world.record(nodes, names, run);
    let states = Outcomes::of(disk, ONCE);
    let every = (&states, usize::MAX);
    let again = try_states("delete, and again", &mut world, every, |world, _, _, _| {
        let Some(path) = path_of(world, "carol") else { return };
        let catalog = Catalog::open(world.catalog());
        delete::run(&catalog, b"carol", &path, false, Wait::Yes).expect("delete");
        assert_eq!(path_of(world, "carol"), None);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    });
    // A client that does not know of it goes on.
    let mail = try_states("delete, and mail", &mut world, every, |world, _, _, _| {
        let new = aftermath::append(world, "carol", 1);
        let path = path_of(world, "carol").unwrap();
        let (messages, _) = aftermath::read(world, &path).unwrap();
        assert!(messages.contains(&new));
    });
    assert!(again.min(mail) >= LEAST_OF_A_TOOL, "{again} and {mail} states");
}
