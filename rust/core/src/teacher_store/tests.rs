use std::collections::HashMap;

use half::f16;

use super::header::KIND;
use super::*;
use crate::ipc;

#[test]
fn classes_sum_to_one() {
    let logp = [-0.1_f32, -3.0, f32::NEG_INFINITY].map(f16::from_f32);
    let mut out = [0.0; 3];
    let tail = renormalise(&logp, f16::from_f32(-2.0), &mut out).unwrap();
    let mass: f32 = out.iter().map(|value| value.exp()).sum::<f32>() + tail.exp();
    assert!((mass - 1.0).abs() < 1e-6);
    assert!(out[2].is_infinite() && out[2] < 0.0);
    assert_eq!(renormalise(&[f16::NEG_INFINITY; 3], f16::ZERO, &mut out), None);
}

fn header(samples: usize) -> Header {
    Header { fingerprint: "t".to_owned(), k: 1, logprob_temperature: 1.0, vocab_size: 9, samples }
}

fn scored(key: u8, sample_ids: &[i32], sample_counts: &[u16]) -> ScoredRow {
    ScoredRow {
        key: [key; 16],
        ids: vec![5, 6],
        logp: vec![-0.5, -1.0],
        tail: vec![-0.9, -0.5],
        opening: None,
        sample_ids: sample_ids.to_vec(),
        sample_counts: sample_counts.to_vec(),
    }
}

#[test]
fn drawn_ids_come_back_and_a_torn_tail_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let header = header(3);
    assert_eq!(header.bytes_per_token(), 4 + 6 + 18);
    let rows = |key| vec![scored(key, &[1, 5, 0, 8, 0, 0], &[2, 1, 0, 3, 0, 0])];
    let mut writer = TeacherWriter::open(directory.path(), &header).unwrap();
    writer.append(rows(1)).unwrap();
    let path = writer.path().to_owned();
    let whole = std::fs::metadata(&path).unwrap().len();
    writer.append(rows(2)).unwrap();
    drop(writer);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(std::fs::metadata(&path).unwrap().len() - 3).unwrap();

    let store = TeacherStore::open(&path).unwrap();
    assert_eq!((store.header(), store.len()), (&header, 1));
    let row = store.get(&[1; 16]).unwrap();
    assert_eq!((row.ids, row.sample_ids), (&[5, 6][..], &[1, 5, 0, 8, 0, 0][..]));
    assert_eq!(row.sample_counts, [2, 1, 0, 3, 0, 0]);
    assert!(store.torn() > 0 && store.audit().is_empty());

    let mut writer = TeacherWriter::open(directory.path(), &header).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
    assert_eq!(writer.append(rows(2)).unwrap(), 1);
    assert_eq!(TeacherStore::open(&path).unwrap().len(), 2);
}

#[test]
fn a_store_without_samples_is_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = TeacherWriter::open(directory.path(), &header(0)).unwrap();
    writer.append(vec![scored(1, &[], &[])]).unwrap();
    let segment = ipc::open(writer.path(), KIND, |_| Ok(columns::schema(HashMap::new(), 0))).unwrap();
    assert_eq!(segment.schema.fields().len(), 7);
    assert!(!segment.schema.metadata.contains_key("kdfast.samples"));
    let store = TeacherStore::open(writer.path()).unwrap();
    assert_eq!(store.header().samples, 0);
    assert!(store.get(&[1; 16]).unwrap().sample_ids.is_empty());
    drop(writer);
    let error = TeacherWriter::open(directory.path(), &header(3)).err().unwrap();
    assert!(error.message.contains("samples 0; asked for"), "{}", error.message);
}

#[test]
fn drawn_ids_that_cannot_be_are_refused() {
    let refused =
        |ids: &[i32], counts: &[u16]| scored(1, ids, counts).check(&header(2), 0).unwrap_err().message;
    assert!(scored(1, &[1, 2, 8, 0], &[1, 1, 2, 0]).check(&header(2), 0).is_ok());
    assert!(refused(&[1, 2], &[1, 1]).contains("2 tokens need 4 drawn ids and counts, found 2 and 2"));
    assert!(refused(&[1, 2, 9, 0], &[1, 1, 2, 0]).contains("outside the vocabulary of 9: 9"));
    assert!(refused(&[1, 2, -1, 0], &[1, 1, 2, 0]).contains("outside the vocabulary of 9: -1"));
    assert!(refused(&[1, 2, 3, 0], &[1, 1, 1, 0]).contains("of token 1 must add up to 2, got 1"));
    assert!(refused(&[1, 2, 0, 3], &[1, 1, 0, 2]).contains("of token 1 must not have a 0 before"));
}
