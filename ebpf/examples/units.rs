use tokenblock_ebpf::{digest::*, rules::Rules, location::LocationKind, scan::*, filter::*};
struct No; impl Filter for No { fn is_on(&self)->bool{true} fn may_hold(&self,_:Fingerprint)->bool{false} }
fn main(){
    let key = InstallationKey([7;16]);
    let names: Vec<(LocationKind,&[u8])> = vec![(LocationKind::Header,b"authorization"),(LocationKind::Header,b"x-api-key"),(LocationKind::Header,b"x-auth-token"),(LocationKind::Header,b"proxy-authorization"),(LocationKind::Cookie,b"session"),(LocationKind::Query,b"access_token")];
    let rules = Rules::new(&key, 8, &names).unwrap();
    let tok: String = (0..800).map(|i| (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"[(i*7+i/13)%64]) as char).collect();
    let req = |auth:&str| format!("GET /api/v1/things/12345?page=2&sort=name HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nAuthorization: Bearer {auth}\r\nCookie: theme=dark; lang=en\r\nConnection: keep-alive\r\n\r\n");
    for r in [req("short"), req(&tok)] {
        let mut s = Scan::new(&rules); let b = r.as_bytes(); let mut n=0;
        loop { let p = s.pos; let st = s.step(&rules, b, &No); n+=1; println!("{:4} {:?}", p, String::from_utf8_lossy(&b[p as usize..s.pos.min(p+40) as usize])); if st == Step::End {break} }
        println!("units {n}");
    }
}
