//! Two hosts, one directory, and clocks that the test turns.

use super::*;

const TERMS: Terms = Terms { ttl: Duration::from_secs(10) };

fn host(directory: &Path, name: &str) -> FileLease {
    FileLease::new(directory, Holder { host: name.into(), identity: format!("boot-of-{name}") }, TERMS)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ours(epoch: u64, after_release: bool) -> Claim {
    Claim::Ours { epoch, after_release }
}

fn is_others(claim: &Claim, name: &str) -> bool {
    matches!(claim, Claim::Others { holder: Some(holder), .. } if holder.host == name)
}

#[test]
fn a_released_lease_is_had_at_once_and_a_held_one_not() {
    let volume = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (host(volume.path(), "a"), host(volume.path(), "b"));
    assert_eq!(a.claim(at(0)).unwrap(), ours(1, true));
    assert_eq!(a.renew().unwrap(), Renewal::Valid);
    assert!(is_others(&b.claim(at(0)).unwrap(), "a"));
    a.release().unwrap();
    assert_eq!(b.claim(at(0)).unwrap(), ours(2, true));
    assert_eq!(b.renew().unwrap(), Renewal::Valid);
    assert_eq!(a.renew().unwrap(), Renewal::Lost);
}

#[test]
fn k70_a_holder_that_beats_is_never_taken_over_whatever_the_other_s_clock_shows() {
    let volume = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (host(volume.path(), "a"), host(volume.path(), "b"));
    a.claim(at(0)).unwrap();
    // A clock of years, one that stands still, one that starts again: only the time between two looks counts.
    for now in [at(1_000_000_000), at(1_000_000_000), at(1_000_000_012), at(5), at(17), at(0)] {
        assert_eq!(a.renew().unwrap(), Renewal::Valid);
        assert!(is_others(&b.claim(now).unwrap(), "a"), "{now:?}");
    }
    assert_eq!(a.renew().unwrap(), Renewal::Valid);
}

#[test]
fn k70_a_silent_holder_is_given_more_than_its_validity() {
    let volume = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (host(volume.path(), "a"), host(volume.path(), "b"));
    a.claim(at(0)).unwrap();
    a.renew().unwrap();
    let first = at(86_400);
    assert!(is_others(&b.claim(first).unwrap(), "a"));
    assert!(is_others(&b.claim(first + TERMS.patience()).unwrap(), "a"));
    assert!(TERMS.patience() > TERMS.ttl);
    // Frozen, b's clock waits for ever; backwards, it begins again.
    assert!(is_others(&b.claim(at(1)).unwrap(), "a"));
    assert_eq!(b.claim(first + TERMS.patience() + at(1)).unwrap(), ours(2, false));
    assert_eq!(b.renew().unwrap(), Renewal::Valid);
    assert_eq!(a.renew().unwrap(), Renewal::Lost);
    // The one that was away stays out, and is told who has it.
    assert!(is_others(&a.claim(at(3)).unwrap(), "b"));
}

#[test]
fn the_next_vamosd_of_a_host_goes_on_under_the_same_epoch() {
    let volume = tempfile::tempdir().unwrap();
    let mut a = host(volume.path(), "a");
    a.claim(at(0)).unwrap();
    a.renew().unwrap();
    drop(a);
    let mut next = host(volume.path(), "a");
    assert_eq!(next.claim(at(0)).unwrap(), ours(1, true));
    assert_eq!(next.renew().unwrap(), Renewal::Valid);
}

/// A claim after a silence that its maker did not live to renew may have come too early.
#[test]
fn a_claim_that_was_never_renewed_is_given_its_time_again() {
    let volume = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (host(volume.path(), "a"), host(volume.path(), "b"));
    a.claim(at(0)).unwrap();
    a.renew().unwrap();
    b.claim(at(0)).unwrap();
    assert_eq!(b.claim(at(20)).unwrap(), ours(2, false));
    let mut next = host(volume.path(), "b");
    assert!(matches!(next.claim(at(21)).unwrap(), Claim::Others { .. }));
    assert!(matches!(next.claim(at(21) + TERMS.patience()).unwrap(), Claim::Others { .. }));
    assert_eq!(next.claim(at(22) + TERMS.patience()).unwrap(), ours(2, false));
}

#[test]
fn an_epoch_without_a_word_is_waited_out_and_then_followed() {
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("lease-7"), "").unwrap();
    let mut b = host(volume.path(), "b");
    assert_eq!(b.claim(at(0)).unwrap(), Claim::Others { epoch: 7, holder: None });
    assert_eq!(b.claim(at(13)).unwrap(), ours(8, false));
}

#[test]
fn of_many_that_claim_one_epoch_one_has_it() {
    for _ in 0..50 {
        let volume = tempfile::tempdir().unwrap();
        let claims = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|number| {
                    let mut lease = host(volume.path(), &number.to_string());
                    scope.spawn(move || lease.claim(at(0)).unwrap())
                })
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Ours { .. })).count(), 1);
    }
}
