//! Sources that go on to send compromised tokens.

use std::net::SocketAddr;

use tokenblock_tests::{
    client::curl,
    fixtures::Token,
    gate,
    netns::{CLIENT_V4, CLIENT_V6},
    origin::Origin,
    poll,
    raw::RawHost,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// Of a server that is not protected.
const OTHER_PORT: u16 = 8081;

#[test]
fn a_source_is_banned_after_so_many_hits_unless_exempt() {
    let Some(binary) = gate::product("bans::a_source_is_banned_after_so_many_hits_unless_exempt")
    else {
        return;
    };
    for (xdp, counter) in [("off", "banned"), ("native", "xdp_banned")] {
        let exempt = format!("{CLIENT_V6}/64");
        let args = ["--ban", "3/60/5", "--ban-exempt", &exempt, "--xdp", xdp];
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &args);
        let _other = Origin::start(&lab.bench.pair.server, OTHER_PORT).unwrap();
        let [v4, v6] = lab.servers();
        let request = Lab::request(Token::Opaque);
        for server in [v4, v6] {
            for _ in 0..3 {
                let answer = lab.exchange(server, &request, LIMIT).answer;
                assert_eq!(answer.status(), Some(403), "{xdp} {server}");
            }
        }
        lab.product.wait_for("source banned", LIMIT).unwrap();
        let clean = |server, patience: &str| {
            let url = format!("http://{server}/");
            curl(
                &lab.bench.pair.client,
                &["--connect-timeout", patience, &url],
            )
            .unwrap()
            .0
        };
        assert_eq!(clean(v4, "0.5"), 0, "{xdp}: a banned source is served");
        // From what is not protected nobody is kept; a third SYN would come when the ban is over.
        let other = SocketAddr::new(v4.ip(), OTHER_PORT);
        assert_eq!(
            clean(other, "2"),
            200,
            "{xdp}: a port that is not protected"
        );
        assert_eq!(clean(v6, "20"), 200, "{xdp}: an exempt source is not");
        assert!(lab.product.kernel_counter(counter).unwrap() > 0, "{xdp}");
        assert_eq!(lab.product.kernel_counter("bans").unwrap(), 1, "{xdp}");
        let over = poll::until(LIMIT, || (clean(v4, "0.5") == 200).then_some(()));
        assert!(over.is_some(), "{xdp}: the ban has no end");
    }
}

/// Networks of both families, as wide and as narrow as they get, one within the other, and IPv4 as IPv6 writes it.
#[test]
fn exempt_are_those_networks_and_no_others() {
    let Some(binary) = gate::product("bans::exempt_are_those_networks_and_no_others") else {
        return;
    };
    // Whether clients are banned that come over IPv4, over IPv6.
    for (exempt, banned) in [
        (&["0.0.0.0/0"][..], [false, true]),
        (&["::/0"], [true, false]),
        (&["::/0", "0.0.0.0/0"], [false, false]),
        (&["fd77::2/128"], [true, false]),
        (&["fd77::3/128", "10.77.0.3/32"], [true, true]),
        (&["fd00::/8", "fd77::/64", "fd77::2/127"], [true, false]),
        (&["10.0.0.0/8", "10.77.0.2", "10.77.0.0/31"], [false, true]),
        (&["::ffff:10.77.0.2"], [false, true]),
        (&["::ffff:10.77.0.0/120", "fd77::/16"], [false, false]),
    ] {
        let networks = exempt.join(",");
        let args = ["--ban", "1/60/60", "--ban-exempt", &networks];
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &args);
        for (server, banned) in lab.servers().into_iter().zip(banned) {
            let answer = lab.exchange(server, &Lab::request(Token::Opaque), LIMIT);
            assert_eq!(answer.answer.status(), Some(403), "{exempt:?} {server}");
            let url = format!("http://{server}/");
            let patience = if banned { "0.3" } else { "20" };
            let args = ["--connect-timeout", patience, &url];
            let (status, _) = curl(&lab.bench.pair.client, &args).unwrap();
            let want = if banned { 0 } else { 200 };
            assert_eq!(status, want, "{exempt:?} {server}");
        }
        let bans = lab.product.kernel_counter("bans").unwrap();
        let want = banned.into_iter().filter(|banned| *banned).count();
        assert_eq!(bans, want as u64, "{exempt:?}");
    }
}

/// Who has not heard the server may be anybody: nobody is banned for what comes in his name.
#[test]
fn nobody_is_banned_for_what_others_send_in_his_name() {
    let Some(binary) = gate::product("bans::nobody_is_banned_for_what_others_send_in_his_name")
    else {
        return;
    };
    let args = ["--ban", "2/60/60", "--on-hit", "drop"];
    let lab = Bench::new(binary).start(Tier::Kernel, &args);
    let host = RawHost::new(&lab.bench.pair).unwrap();
    let victims = [CLIENT_V4, CLIENT_V6];
    let blocked = || lab.product.kernel_counter("blocked").unwrap();
    for (server, victim) in lab.servers().into_iter().zip(victims) {
        let before = blocked();
        let mut sender = host.client(server, 1).unwrap();
        for port in 2000..2010 {
            sender.become_another(SocketAddr::new(victim, port));
            let mut segment = sender.segment(0, Lab::request(Token::Opaque));
            segment.tcp.acknowledgment_number = 0x1234_5678;
            sender.send(&segment).unwrap();
        }
        let sent = || (blocked() == before + 10).then_some(());
        assert!(poll::until(LIMIT, sent).is_some(), "{server}");
        let url = format!("http://{server}/");
        let (status, _) = curl(&lab.bench.pair.client, &[&url]).unwrap();
        assert_eq!(status, 200, "{server}");
    }
    assert_eq!(lab.product.kernel_counter("bans").unwrap(), 0);
}
