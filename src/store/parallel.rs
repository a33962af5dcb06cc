//! Several things at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Runs `work` on every item, a few at once, and returns the results in order. The first error
/// stops what has not begun.
pub(crate) fn in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let results: Vec<_> = items.iter().map(|_| Mutex::new(None)).collect();
    let failed = Mutex::new(None);
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item) {
                Ok(result) => *results[at].lock() = Some(result),
                Err(error) => {
                    failed.lock().get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Who asks works too: of one item, a thread would be most of what it costs.
        for _ in 1..at_once.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(results.into_iter().filter_map(Mutex::into_inner).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_parallel_keeps_its_order_and_its_first_error() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = in_parallel(&items, 4, |item| Ok::<_, String>(item * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let failed = in_parallel(&items, 4, |item| if *item == 7 { Err("seven") } else { Ok(()) });
        assert_eq!(failed, Err("seven"));
        assert_eq!(in_parallel(&[] as &[u32], 4, |_| Ok::<_, ()>(())), Ok(vec![]));
    }
}
