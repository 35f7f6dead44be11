use aya::maps::HashMap;
use aya::programs::{Program, TestRun, TestRunOptions};
use tokenblock::kernel::load::*;
use tokenblock_ebpf::{digest::*, filter::*, location::LocationKind, rules::Rules, verdict::*};
fn packet(payload: &[u8], dport: u16) -> Vec<u8> {
    let mut p = vec![0u8; 12];
    p.extend([8, 0]);
    let total = (20 + 32 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    p.extend(ip);
    p.extend(40000u16.to_be_bytes());
    p.extend(dport.to_be_bytes());
    p.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    p.extend([1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
    p.extend(payload);
    p
}
fn main() {
    let key = InstallationKey([7; 16]);
    let names: Vec<(LocationKind, &[u8])> = vec![
        (LocationKind::Header, b"authorization"),
        (LocationKind::Header, b"x-api-key"),
        (LocationKind::Header, b"x-auth-token"),
        (LocationKind::Header, b"proxy-authorization"),
        (LocationKind::Cookie, b"session"),
        (LocationKind::Query, b"access_token"),
    ];
    let rules = Rules::new(&key, 8, &names).unwrap();
    let mut ports = PortSet::EMPTY;
    ports.insert(80);
    let object =
        std::fs::read("/work/main/target/bpf/bpfel-unknown-none/release/tokenblock-programs")
            .unwrap();
    let n: u32 = std::env::args().nth(1).map_or(1000, |s| s.parse().unwrap());
    let mut e = match load(&Load {
        object: &object,
        rules: &rules,
        settings: Settings {
            monitor: 0,
            filter_mask: (n.max(1024) / 4).next_power_of_two() - 1,
        },
        ports: &ports,
        capacity: n.max(1024) * 2,
    }) {
        Ok(e) => e,
        Err(e) => {
            println!("{e}");
            let mut s: &dyn std::error::Error = &e;
            while let Some(x) = s.source() {
                println!("  {x}");
                s = x;
            }
            return;
        }
    };
    let tok: String = (0..800)
        .map(|i| {
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
                [(i * 7 + i / 13) % 64]) as char
        })
        .collect();
    let bad = "tok_compromised_0123456789abcdef0123456789";
    {
        let mut m: HashMap<_, TokenDigest, MapEntry> =
            HashMap::try_from(e.map_mut("DENYLIST").unwrap()).unwrap();
        let t = std::time::Instant::now();
        for i in 0..n {
            let d = TokenDigest::of(&key, Domain::Exact, &i.to_le_bytes());
            m.insert(
                &d,
                &MapEntry {
                    token: [0; 6],
                    action: 0,
                    reserved: 0,
                },
                0,
            )
            .unwrap();
        }
        drop(m);
        let mask = (n.max(1024) / 4).next_power_of_two() - 1;
        let mut f = vec![0u64; mask as usize + 1];
        let mut fa: aya::maps::Array<_, u64> =
            aya::maps::Array::try_from(e.map_mut("FILTER").unwrap()).unwrap();
        for i in 0..n {
            let (b, bits) = Fingerprint::of(&key, Domain::Exact, &i.to_le_bytes()).place(mask);
            f[b as usize] |= bits;
        }
        let (b, bits) = Fingerprint::of(&key, Domain::Exact, bad.as_bytes()).place(mask);
        f[b as usize] |= bits;
        for (i, w) in f.iter().enumerate() {
            fa.set(i as u32, *w, 0).unwrap();
        }
        let mut m: HashMap<_, TokenDigest, MapEntry> =
            HashMap::try_from(e.map_mut("DENYLIST").unwrap()).unwrap();
        println!("insert {n}: {:?}", t.elapsed());
        m.insert(
            &TokenDigest::of(&key, Domain::Exact, bad.as_bytes()),
            &MapEntry {
                token: [0; 6],
                action: 0,
                reserved: 0,
            },
            0,
        )
        .unwrap();
    }
    let req = |auth: &str| {
        format!(
            "GET /api/v1/things/12345?page=2&sort=name HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nAuthorization: Bearer {auth}\r\nCookie: theme=dark; lang=en\r\nConnection: keep-alive\r\n\r\n"
        )
    };
    let jwt = format!("{}.{}.{}", &tok[..36], &tok[36..600], &tok[600..]);
    let body: Vec<u8> = (0..1400)
        .map(|i| {
            if i % 80 == 79 {
                b'\n'
            } else {
                b"the quick brown fox jumps over lazy dogs "[i % 41]
            }
        })
        .collect();
    let json: Vec<u8> =
        "{\"id\":1234,\"name\":\"something\",\"tags\":[\"a\",\"b\"],\"value\":3.14159}, "
            .bytes()
            .cycle()
            .take(1024)
            .collect();
    let mut x: u64 = 88172645463325252;
    let rnd: Vec<u8> = (0..1024)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect();
    let big: Vec<u8> = json.iter().copied().cycle().take(9000).collect();
    let bigtext: Vec<u8> = body.iter().copied().cycle().take(9000).collect();
    if std::env::args().nth(2).is_some() {
        std::thread::sleep(std::time::Duration::from_secs(20));
    }
    for p in ["ingress_ethernet"] {
        let Program::SchedClassifier(prog) = e.program_mut(p).unwrap() else {
            panic!()
        };
        let info = prog.info().unwrap();
        println!(
            "{p}: verified {:?} jited {} xlated {:?}",
            info.verified_instruction_count(),
            info.size_jitted(),
            info.size_translated()
        );
        for (name, pkt) in [
            ("clean 800B opaque", packet(req(&tok).as_bytes(), 80)),
            ("clean 800B jwt", packet(req(&jwt).as_bytes(), 80)),
            ("hit", packet(req(bad).as_bytes(), 80)),
            ("small clean", packet(req("short").as_bytes(), 80)),
            ("text body 1400", packet(&body, 80)),
            ("json 1024", packet(&json, 80)),
            ("random 1024", packet(&rnd, 80)),
            ("other port", packet(&body, 81)),
            ("ack only", packet(b"", 80)),
            ("json 60K", packet(&big, 80)),
            ("text 60K", packet(&bigtext, 80)),
        ] {
            let mut best = u128::MAX;
            let mut ret = 0;
            for _ in 0..5 {
                let r = prog
                    .test_run(TestRunOptions {
                        data_in: Some(&pkt),
                        repeat: 20000.min(40_000_000 / pkt.len() as u32).max(1),
                        ..TestRunOptions::default()
                    })
                    .unwrap();
                ret = r.return_value as i32;
                best = best.min(r.duration.as_nanos());
            }
            println!("{name:20} len {:5} ret {:2} {} ns", pkt.len(), ret, best);
        }
    }
}
