//! Sources that go on to send compromised tokens.

use std::time::Duration;

use tokenblock_tests::{client::curl, fixtures::Token, gate, netns::CLIENT_V6};

use crate::lab::{Bench, LIMIT, Lab, Tier};

#[test]
fn a_source_is_banned_after_so_many_hits_unless_exempt() {
    let Some(binary) = gate::product("bans::a_source_is_banned_after_so_many_hits_unless_exempt")
    else {
        return;
    };
    for (xdp, counter) in [("off", "banned"), ("native", "xdp_banned")] {
        let exempt = format!("{CLIENT_V6}/64");
        let args = ["--ban", "3/60/2", "--ban-exempt", &exempt, "--xdp", xdp];
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &args);
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
        assert_eq!(clean(v6, "3"), 200, "{xdp}: an exempt source is not");
        assert!(lab.product.kernel_counter(counter).unwrap() > 0, "{xdp}");
        assert_eq!(lab.product.kernel_counter("bans").unwrap(), 1, "{xdp}");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(clean(v4, "3"), 200, "{xdp}: the ban has no end");
    }
}
