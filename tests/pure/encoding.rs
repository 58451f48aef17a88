//! Whatever is written down is read back the same: records, markers, names, paths.

use jin_txn::internals::codec::{TOO_LARGE, decode, decode_header};
use jin_txn::internals::{
    Begin, Body, Checkout, ExecContext, Marker, Outcome, Owner, PayloadKey, Phase, Process, Record, RefSnapshot,
    Reversal, TxKind, Watched, escape, unescape,
};
use jin_txn::{FileId, Oid, RefChange, RefName, TxId, Value};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = RefName> {
    // Any bytes that git allows, UTF-8 or not.
    let part = prop::collection::vec(any::<u8>(), 1..12);
    prop::collection::vec(part, 1..4).prop_filter_map("git refuses the name", |parts| {
        RefName::parse(&[b"refs/heads/".as_slice(), &parts.join(&b'/')].concat()).ok()
    })
}

fn oid() -> impl Strategy<Value = Oid> {
    prop_oneof!["[0-9a-f]{40}", "[0-9a-f]{64}"].prop_map(|hex| Oid::parse(hex.as_bytes()).expect("an object name"))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Absent), Just(Value::Broken), oid().prop_map(Value::Oid), name().prop_map(Value::Symref)]
}

fn file() -> impl Strategy<Value = Option<FileId>> {
    prop::option::of(any::<[i64; 4]>().prop_map(FileId::from))
}

fn owner() -> impl Strategy<Value = Owner> {
    (any::<u32>(), any::<u64>(), any::<String>(), any::<String>(), any::<u64>()).prop_map(
        |(pid, start, boot, host, pidns)| Owner {
            process: Process { pid, start },
            place: ExecContext { boot, host, pidns },
        },
    )
}

fn settled() -> impl Strategy<Value = Vec<RefSnapshot>> {
    prop::collection::vec(
        (name(), value(), file()).prop_map(|(name, value, file)| RefSnapshot { name, value, file }),
        0..4,
    )
}

fn tx() -> impl Strategy<Value = TxId> {
    (0..TOO_LARGE).prop_map(TxId)
}

fn begin() -> impl Strategy<Value = Begin> {
    let change = (name(), prop::option::of(value()), value(), file(), file(), any::<Option<u64>>())
        .prop_map(|(name, before, after, file, lock, log)| RefChange { name, before, after, file, lock, log });
    let watched = (name(), file(), any::<Option<u64>>()).prop_map(|(name, lock, log)| Watched { name, lock, log });
    let origin = prop_oneof![Just(TxKind::Hook), Just(TxKind::Apply), Just(TxKind::Run)];
    let reverses = prop::option::of(prop_oneof![tx().prop_map(Reversal::Undo), tx().prop_map(Reversal::Redo)]);
    let lists = (prop::collection::vec(change, 0..4), prop::collection::vec(watched, 0..3));
    (origin, any::<[String; 3]>(), owner(), lists, any::<[bool; 3]>(), reverses, [file(), file(), file()]).prop_map(
        |(
            origin,
            [operation, worktree, message],
            owner,
            (refs, watched),
            [reftable, batched, barrier],
            reverses,
            files,
        )| {
            let [packed_lock, index_lock, packed] = files;
            let hook_process = owner.process;
            Begin {
                worktree,
                message,
                refs,
                watched,
                reftable,
                batched,
                barrier,
                reverses,
                packed_lock,
                index_lock,
                packed,
                ..Begin::new(origin, &operation, owner, hook_process)
            }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let outcome = prop_oneof![
        Just(Outcome::Committed),
        Just(Outcome::RolledBack),
        Just(Outcome::NeedsHuman),
        Just(Outcome::Acknowledged)
    ];
    let actions = prop::collection::vec(any::<String>(), 0..3);
    prop_oneof![
        begin().prop_map(|b| Body::Begin(Box::new(b))),
        begin().prop_map(|b| Body::Decided(Box::new(b))),
        settled().prop_map(|refs| Body::Committed { refs }),
        Just(Body::Aborted),
        tx().prop_map(|by| Body::Absorbed { by }),
        settled().prop_map(|refs| Body::Moved { refs }),
        (outcome, actions.clone(), settled()).prop_map(|(outcome, actions, refs)| Body::Recovered {
            outcome,
            actions,
            refs
        }),
        (any::<u64>(), actions, settled()).prop_map(|(as_of, actions, refs)| Body::Baseline { as_of, actions, refs }),
        (any::<String>(), any::<String>(), any::<bool>()).prop_map(|(from, to, branch)| Body::Checkout(Checkout {
            from,
            to,
            branch,
            ..Checkout::default()
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_other_byte_will_do(
        lsn in 0..TOO_LARGE, tx in prop::option::of(tx()), time in any::<u64>(), body in body(),
        at in any::<prop::sample::Index>(), bits in 1..=255_u8,
    ) {
        let mut line = Vec::new();
        let written = body.encode().unwrap().write(lsn, tx, time, &mut line).unwrap();
        prop_assert_eq!(written, line.len() as u64);
        prop_assert_eq!(line.pop(), Some(b'\n'));
        prop_assert!(!line.contains(&b'\n'), "a record is a line");
        prop_assert_eq!(decode_header(&line).map(|h| (h.lsn, h.tx)), Ok((lsn, tx)));
        prop_assert_eq!(decode(&line), Ok(Record { lsn, tx, time, body }));
        let at = at.index(line.len());
        line[at] ^= bits;
        prop_assert!(decode(&line).is_err(), "byte {} changed by {:#x}", at, bits);
    }

    #[test]
    fn a_marker_is_read_as_it_was_written(
        id in any::<u64>(), timestamp in any::<u64>(), operation in any::<String>(), owner in owner(),
        prepared in any::<bool>(), key in any::<(u32, u64, u64)>(), probe in prop::option::of((any::<String>(), any::<[i64; 4]>())),
        worktree in any::<Option<String>>(), follow_up in any::<bool>(),
    ) {
        let hook_process = owner.process;
        let marker = Marker {
            id: TxId(id), origin: TxKind::Hook, timestamp, operation, owner, hook_process,
            phase: if prepared { Phase::Prepared } else { Phase::Preparing },
            payload: PayloadKey { crc: key.0, len: key.1, count: key.2 },
            probe: probe.map(|(path, id)| (path, FileId::from(id))),
            index_lock: None, follow_up, worktree,
        };
        prop_assert_eq!(Marker::decode(&marker.encode().unwrap()).unwrap(), marker);
    }

    #[test]
    fn any_bytes_survive_the_way_through_text(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let text = escape(&bytes).into_owned();
        prop_assert!(!text.chars().any(char::is_control));
        prop_assert_eq!(unescape(&text), Some(bytes));
    }
}
