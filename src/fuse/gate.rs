//! The gate: stopping all threads of a server between two requests, so that another process can go on.
//!
//! A thread that waits for a request in the kernel is woken by a signal, which must reach it nowhere else:
//! other calls would be interrupted. So it says when it waits, whoever signals says so before, and a
//! thread that comes back meanwhile takes the signal before it goes on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::sys::{self, ThreadId};

/// How long whoever closes the gate waits before it signals again.
const AGAIN: Duration = Duration::from_millis(1);

/// What a thread is doing.
mod status {
    /// It works, and looks at the gate when it is done.
    pub(super) const WORKS: u8 = 0;
    /// It waits for a request.
    pub(super) const WAITS: u8 = 1;
    /// It waits, and is about to be signalled.
    pub(super) const CALLED: u8 = 2;
    /// It waits, and was signalled.
    pub(super) const SIGNALLED: u8 = 3;
    /// It has stopped, or ended.
    pub(super) const STOPPED: u8 = 4;
}

/// A gate for so many threads.
#[derive(Debug)]
pub(crate) struct Gate {
    is_closed: AtomicBool,
    places: Vec<Place>,
    /// The threads that have stopped end: another process serves.
    has_ended: Mutex<bool>,
    changed: Condvar,
}

/// What there is of a thread, in memory of its own: it writes at each request.
#[derive(Debug)]
#[repr(align(64))]
struct Place {
    status: AtomicU8,
    thread: OnceLock<ThreadId>,
    /// It waits for what may come at any time, and stops when it has come: waiting it has nothing in hand.
    rests_waiting: bool,
}

/// What a thread that was stopped does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It takes the next request.
    GoOn,
    /// It ends.
    End,
}

impl Gate {
    /// Makes a gate for threads that read the device, and others that have slots of a ring.
    pub(crate) fn new(readers: usize, rings: usize) -> Self {
        let place = |number| Place {
            status: AtomicU8::new(status::WORKS),
            thread: OnceLock::new(),
            rests_waiting: number >= readers,
        };
        Self {
            is_closed: AtomicBool::new(false),
            places: (0..readers + rings).map(place).collect(),
            has_ended: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Passes a thread through between two requests: while the gate is closed it stops here.
    pub(crate) fn pass(&self, number: usize) -> Then {
        if !self.is_closed.load(Ordering::SeqCst) {
            return Then::GoOn;
        }
        let Some(place) = self.places.get(number) else { return Then::GoOn };
        let mut has_ended = self.has_ended.lock();
        place.status.store(status::STOPPED, Ordering::SeqCst);
        self.changed.notify_all();
        while !*has_ended && self.is_closed.load(Ordering::SeqCst) {
            self.changed.wait(&mut has_ended);
        }
        if *has_ended {
            return Then::End;
        }
        place.status.store(status::WORKS, Ordering::SeqCst);
        Then::GoOn
    }

    /// Waits for something in the kernel, which a signal interrupts when the gate is closed.
    pub(crate) fn wait<T>(&self, number: usize, wait: impl FnOnce() -> T) -> T {
        let Some(Place { status, thread, .. }) = self.places.get(number) else { return wait() };
        thread.get_or_init(ThreadId::own);
        status.store(status::WAITS, Ordering::SeqCst);
        let result = wait();
        let (works, order) = (status::WORKS, Ordering::SeqCst);
        if status.compare_exchange(status::WAITS, works, order, order).is_err() {
            // The signal was sent, or is about to be. It arrives in a call, at the latest in the last.
            while status.compare_exchange(status::SIGNALLED, works, order, order).is_err() {
                std::thread::yield_now();
            }
            std::thread::yield_now();
        }
        result
    }

    /// Notes that a thread has ended: there is nothing more to serve.
    pub(crate) fn leave(&self, number: usize) {
        if let Some(place) = self.places.get(number) {
            place.status.store(status::STOPPED, Ordering::SeqCst);
        }
        self.changed.notify_all();
    }

    /// Closes the gate; when this returns, all threads have stopped and have nothing in hand.
    pub(crate) fn close(&self) -> sys::Result<()> {
        *self.has_ended.lock() = false;
        self.is_closed.store(true, Ordering::SeqCst);
        let _woken = sys::InterruptingSignal::begin()?;
        for place in &self.places {
            while !place.call()? {
                let mut has_ended = self.has_ended.lock();
                if !place.is_at_rest() {
                    self.changed.wait_for(&mut has_ended, AGAIN);
                }
            }
        }
        Ok(())
    }

    /// Has the threads go on.
    pub(crate) fn open(&self) {
        let _changes = self.has_ended.lock();
        self.is_closed.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Has the threads end.
    pub(crate) fn end(&self) {
        *self.has_ended.lock() = true;
        self.changed.notify_all();
    }

    /// Tells whether threads end because another process serves.
    pub(crate) fn has_ended(&self) -> bool {
        *self.has_ended.lock()
    }
}

impl Place {
    /// Tells whether the thread has nothing in hand, and takes nothing.
    fn is_at_rest(&self) -> bool {
        match self.status.load(Ordering::SeqCst) {
            status::STOPPED => true,
            status::WAITS => self.rests_waiting,
            _ => false,
        }
    }

    /// Wakes a thread that waits; tells whether it has stopped.
    fn call(&self) -> sys::Result<bool> {
        let now = self.status.load(Ordering::SeqCst);
        if self.is_at_rest() {
            return Ok(true);
        }
        let waits = now == status::WAITS || now == status::SIGNALLED;
        let (to, order) = (status::CALLED, Ordering::SeqCst);
        if waits && self.status.compare_exchange(now, to, order, order).is_ok() {
            let signalled = self.thread.get().map_or(Ok(()), ThreadId::interrupt);
            self.status.store(status::SIGNALLED, Ordering::SeqCst);
            signalled?;
        }
        Ok(false)
    }
}
