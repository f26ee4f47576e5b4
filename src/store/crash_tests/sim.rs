//! A disk that forgets what was never synced, and whose n-th call fails.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::backup::{index_path, with_suffix};
use super::super::disk::Disk;
use super::random::Random;

/// Power goes sector by sector.
const SECTOR: usize = 512;

#[derive(Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    image: Image,
    /// Of the backup, whose index is a real file.
    path: PathBuf,
    cuts: Option<Vec<CutPoint>>,
    promised: Promised,
    calls: usize,
    asked: Asked,
    failing: Option<Failing>,
}

/// What was promised up to some instant: a count of lines each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promised {
    /// Survive the death of the process.
    pub(super) acknowledged: usize,
    /// Survive a power cut.
    pub(super) durable: usize,
}

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) reads: u64,
    pub(super) octets_read: u64,
    pub(super) writes: u64,
    pub(super) octets_written: u64,
    pub(super) syncs: u64,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    pub(super) from: usize,
    pub(super) until: usize,
    pub(super) errno: i32,
}

/// The octets of a file, here and after a power cut.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// An instant at which the power may go.
#[derive(Clone)]
pub(super) struct CutPoint {
    pub(super) image: Image,
    pub(super) index: Option<Vec<u8>>,
    pub(super) journal: Option<Vec<u8>>,
    pub(super) promised: Promised,
}

/// What a power cut leaves of the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Only the process dies.
    ProcessDies,
    /// Nothing that was not synced.
    Lost,
    /// Everything up to some change, of which a part.
    Torn,
    /// Any sectors of any changes.
    Scattered,
}

impl Image {
    pub(super) fn settled(octets: Vec<u8>) -> Image {
        Image { live: octets.clone(), durable: octets, pending: Vec::new() }
    }

    pub(super) fn after(&self, outcome: Outcome, random: &mut Random) -> Vec<u8> {
        let mut octets = match outcome {
            Outcome::ProcessDies => return self.live.clone(),
            _ => self.durable.clone(),
        };
        let count = self.pending.len();
        match outcome {
            Outcome::ProcessDies | Outcome::Lost => {}
            Outcome::Torn if count == 0 => {}
            Outcome::Torn => {
                let last = random.below(count);
                self.pending[..last].iter().for_each(|change| change.make(&mut octets));
                if let Change::Write(at, data) = &self.pending[last] {
                    let len = random.below(data.len() + 1);
                    Change::Write(*at, data[..len].to_vec()).make(&mut octets);
                }
            }
            Outcome::Scattered => {
                // Few losses are harder to see than many.
                let loss = [2, 8, 32][random.below(3)];
                for change in &self.pending {
                    change.scatter(&mut octets, loss, random);
                }
            }
        }
        octets
    }
}

impl Change {
    fn make(&self, octets: &mut Vec<u8>) {
        match self {
            Change::Cut(len) => octets.truncate(*len),
            Change::Write(at, data) => {
                let end = at + data.len();
                octets.resize(octets.len().max(end), 0);
                octets[*at..end].copy_from_slice(data);
            }
        }
    }

    /// Loses one of `loss` sectors: it holds what it held, or zeros.
    fn scatter(&self, octets: &mut Vec<u8>, loss: usize, random: &mut Random) {
        match self {
            Change::Cut(_) if random.below(2) == 0 => {}
            Change::Cut(_) => self.make(octets),
            Change::Write(at, data) => {
                let mut from = 0;
                while from < data.len() {
                    let to = data.len().min(((at + from) / SECTOR + 1) * SECTOR - at);
                    if random.below(loss) > 0 {
                        Change::Write(at + from, data[from..to].to_vec()).make(octets);
                    }
                    from = to;
                }
            }
        }
    }
}

impl SimDisk {
    pub(super) fn over(image: Image, path: PathBuf) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State { image, path, ..State::default() })))
    }

    /// Notes every instant at which the power may go.
    pub(super) fn note_cuts(&self) {
        let mut state = self.lock();
        state.cuts = Some(Vec::new());
        state.note_cut();
    }

    pub(super) fn take_cuts(&self) -> Vec<CutPoint> {
        let mut state = self.lock();
        state.note_cut();
        state.cuts.take().unwrap_or_default()
    }

    pub(super) fn promise(&self, promised: Promised) {
        let mut state = self.lock();
        state.promised = promised;
        state.note_cut();
    }

    pub(super) fn fail(&self, failing: Option<Failing>) {
        self.lock().failing = failing;
    }

    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// What was asked since the last call.
    pub(super) fn take_asked(&self) -> Asked {
        std::mem::take(&mut self.lock().asked)
    }

    pub(super) fn image(&self) -> Image {
        self.lock().image.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn note_cut(&mut self) {
        let Some(cuts) = &mut self.cuts else { return };
        let index = index_path(&self.path);
        cuts.push(CutPoint {
            image: self.image.clone(),
            index: fs::read(&index).ok(),
            journal: fs::read(with_suffix(&index, "-journal")).ok(),
            promised: self.promised,
        });
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.failing {
            Some(failing) if (failing.from..failing.until).contains(&self.calls) => {
                Err(io::Error::from_raw_os_error(failing.errno))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.make(&mut self.image.live);
        self.image.pending.push(change);
        self.note_cut();
    }
}

impl Disk for SimDisk {
    fn len_file(&self) -> io::Result<u64> {
        Ok(self.lock().image.live.len() as u64)
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.lock();
        state.call()?;
        let rest = state.image.live.get(at as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        state.asked.reads += 1;
        state.asked.octets_read += len as u64;
        Ok(len)
    }

    fn write_at(&self, octets: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.asked.writes += 1;
        state.asked.octets_written += octets.len() as u64;
        let called = state.call();
        // A write that fails may have done half its work.
        let len = if called.is_ok() { octets.len() } else { octets.len() / 2 };
        state.change(Change::Write(at as usize, octets[..len].to_vec()));
        called
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        assert!(len <= state.image.live.len() as u64, "only ever shorter");
        state.change(Change::Cut(len as usize));
        Ok(())
    }

    /// As Linux does it: what could not be written counts as clean afterwards, and
    /// the next sync says nothing about it.
    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.asked.syncs += 1;
        let called = state.call();
        let image = &mut state.image;
        for change in std::mem::take(&mut image.pending) {
            match change {
                // The file system has its own journal for lengths.
                Change::Write(at, data) if called.is_err() => {
                    let zeros = vec![0; (at + data.len()).saturating_sub(image.durable.len())];
                    Change::Write(image.durable.len(), zeros).make(&mut image.durable);
                }
                change => change.make(&mut image.durable),
            }
        }
        state.note_cut();
        called
    }
}
