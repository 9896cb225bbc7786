//! What PostgreSQL clients send: whole connections, each message on its own, and bad ones.
//!
//! Source: PostgreSQL 15 documentation, 55.7 "Message Formats".

/// Connections by name; the first byte is the size of the reads.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add =
        |name: &str, parts: &[Vec<u8>]| seeds.push((name.to_owned(), [vec![11], parts.concat()].concat()));
    let every: Vec<Vec<u8>> = messages().into_iter().map(|(_, message)| message).collect();
    add("session", &[vec![startup()], every].concat());
    add("encryption_declined", &[request(80_877_103), startup(), text(b'Q', &["SELECT 1"])]);
    add("encryption_assumed", &[request(80_877_103), startup()]);
    add("gss_declined", &[request(80_877_104), startup()]);
    add("cancel", &[untyped(&[&80_877_102u32.to_be_bytes(), &7u32.to_be_bytes(), &9u32.to_be_bytes()])]);
    add("protocol_2", &[untyped(&[&(2u32 << 16).to_be_bytes(), b"user\0a\0\0"])]);
    add("protocol_3_9", &[untyped(&[&(3u32 << 16 | 9).to_be_bytes(), b"user\0a\0_pq_.x\0y\0\0"])]);
    add(
        "options",
        &[untyped(&[&(3u32 << 16).to_be_bytes(), b"user\0a\0options\0-c search_path=a\\ b --x=1\0\0"])],
    );
    add("startup_without_end", &[untyped(&[&(3u32 << 16).to_be_bytes(), b"user\0a"])]);
    add("startup_of_20_000_bytes", &[untyped(&[&(3u32 << 16).to_be_bytes(), &[b'a'; 20_000]])]);
    add("startup_of_length_3", &[3u32.to_be_bytes().to_vec()]);
    for (name, message) in messages().into_iter().chain(bad()) {
        add(name, &[startup(), message, typed(b'S', &[])]);
    }
    seeds
}

fn untyped(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn typed(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [vec![kind], untyped(parts)].concat()
}

fn text(kind: u8, fields: &[&str]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|field| field.bytes().chain([0])).collect();
    typed(kind, &[&fields])
}

fn request(code: u32) -> Vec<u8> {
    untyped(&[&code.to_be_bytes()])
}

fn startup() -> Vec<u8> {
    untyped(&[
        &(3u32 << 16).to_be_bytes(),
        b"user\0root\0database\0catalog\0application_name\0psql\0client_encoding\0UTF8\0\0",
    ])
}

/// One of each message a client may send after start-up.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let int = |value: i32| value.to_be_bytes();
    let short = |value: i16| value.to_be_bytes();
    vec![
        ("query", text(b'Q', &["SELECT count(*) FROM package WHERE section = 'libs'"])),
        ("query_of_several", text(b'Q', &["BEGIN; INSERT INTO a VALUES (1, 'caf\u{e9}'); COMMIT"])),
        ("query_empty", text(b'Q', &[""])),
        ("parse", typed(b'P', &[b"s1\0SELECT $1, $2\0", &short(2), &int(23), &int(25)])),
        ("parse_unnamed", typed(b'P', &[b"\0SELECT 1\0", &short(0)])),
        (
            "bind",
            typed(
                b'B',
                &[
                    b"p1\0s1\0",
                    &short(1),
                    &short(1),
                    &short(2),
                    &int(4),
                    &int(42),
                    &int(-1),
                    &short(1),
                    &short(0),
                ],
            ),
        ),
        ("bind_nothing", typed(b'B', &[b"\0\0", &short(0), &short(0), &short(0)])),
        ("describe_statement", typed(b'D', &[b"Ss1\0"])),
        ("describe_portal", typed(b'D', &[b"Pp1\0"])),
        ("execute", typed(b'E', &[b"p1\0", &int(100)])),
        ("close_statement", typed(b'C', &[b"Ss1\0"])),
        ("close_portal", typed(b'C', &[b"Pp1\0"])),
        ("flush", typed(b'H', &[])),
        ("sync", typed(b'S', &[])),
        ("copy_data", typed(b'd', &[b"1\tlibc6\t\\N\n2\tbash\t\\\\x\n"])),
        ("copy_done", typed(b'c', &[])),
        ("copy_fail", text(b'f', &["the file ended early"])),
        ("password", text(b'p', &["secret"])),
        ("function_call", typed(b'F', &[&int(1), &short(0), &short(0), &short(0)])),
        ("terminate", typed(b'X', &[])),
    ]
}

/// Messages that must be refused.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let int = |value: i32| value.to_be_bytes();
    let short = |value: i16| value.to_be_bytes();
    vec![
        ("length_3", vec![b'Q', 0, 0, 0, 3]),
        ("length_negative", vec![b'Q', 0xff, 0xff, 0xff, 0xff]),
        ("length_of_2_gib", vec![b'd', 0x7f, 0xff, 0xff, 0xff]),
        ("unknown_type", typed(0, &[b"abc"])),
        ("query_without_end", typed(b'Q', &[b"SELECT 1"])),
        ("query_with_more", typed(b'Q', &[b"SELECT 1\0extra"])),
        ("query_not_utf8", typed(b'Q', &[b"SELECT '\xff\xfe'\0"])),
        ("parse_promises_types", typed(b'P', &[b"\0SELECT 1\0", &short(-1)])),
        ("bind_65_535_parameters", typed(b'B', &[b"\0\0", &short(0), &short(-1), &[0xff; 400]])),
        ("bind_negative_length", typed(b'B', &[b"\0\0", &short(0), &short(1), &int(-2), &short(0)])),
        (
            "bind_huge_parameter",
            typed(b'B', &[b"\0\0", &short(0), &short(1), &int(i32::MAX), b"abc", &short(0)]),
        ),
        ("bind_format_7", typed(b'B', &[b"\0\0", &short(1), &short(7), &short(0), &short(0)])),
        ("describe_nothing", typed(b'D', &[b"X\0"])),
        ("describe_empty", typed(b'D', &[])),
        ("execute_negative", typed(b'E', &[b"\0", &int(-1)])),
        ("sync_with_body", typed(b'S', &[b"abc"])),
    ]
}
