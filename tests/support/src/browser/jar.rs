//! Cookies (RFC 6265), except that `Secure` counts as met on the loopback and that ports do not share
//! cookies, so that the many servers of one test on 127.0.0.1 stay apart.

use jiff::Timestamp;
use reqwest::header::{HeaderMap, SET_COOKIE};
use url::Url;

use crate::clock::now_s;

/// One stored cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Name.
    pub name: String,
    /// Value, as sent.
    pub value: String,
    /// Path it is sent to.
    pub path: String,
    /// Whether the server marked it `Secure`.
    pub secure: bool,
    /// Whether the server marked it `HttpOnly`.
    pub http_only: bool,
    /// The `SameSite` attribute as sent, if any.
    pub same_site: Option<String>,
    /// When it ends, in seconds since 1970; `None` for a session cookie.
    pub expires: Option<u64>,
    origin: (String, u16),
}

/// All cookies of one browser.
#[derive(Debug, Clone, Default)]
pub struct Jar {
    cookies: Vec<Cookie>,
}

impl Jar {
    /// Takes the `Set-Cookie` headers of an answer from `url`.
    pub fn learn(&mut self, url: &Url, headers: &HeaderMap) {
        for header in headers.get_all(SET_COOKIE) {
            if let Some(cookie) = parse(url, &String::from_utf8_lossy(header.as_bytes())) {
                let same = |one: &Cookie| {
                    one.name == cookie.name && one.path == cookie.path && one.origin == cookie.origin
                };
                self.cookies.retain(|one| !same(one));
                if cookie.expires.is_none_or(|end| end > now_s()) {
                    self.cookies.push(cookie);
                }
            }
        }
    }

    /// The `Cookie` header for a request, if there is any cookie for it.
    pub fn header(&self, url: &Url) -> Option<String> {
        let mut cookies = self.for_url(url);
        // RFC 6265 §5.4: longer paths first.
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = cookies
            .iter()
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The cookies that go to this URL.
    pub fn for_url(&self, url: &Url) -> Vec<Cookie> {
        let origin = origin(url);
        let secure = url.scheme() == "https" || is_loopback(url);
        let goes = |cookie: &&Cookie| {
            cookie.origin == origin
                && path_matches(url.path(), &cookie.path)
                && (secure || !cookie.secure)
                && cookie.expires.is_none_or(|end| end > now_s())
        };
        self.cookies.iter().filter(goes).cloned().collect()
    }

    /// The cookie of this name that goes to this URL.
    pub fn get(&self, url: &str, name: &str) -> Option<Cookie> {
        let url = Url::parse(url).expect("a URL");
        self.for_url(&url).into_iter().find(|cookie| cookie.name == name)
    }

    /// Plants or overwrites a cookie for this URL's origin and path `/`.
    pub fn set(&mut self, url: &str, name: &str, value: &str) {
        let url = Url::parse(url).expect("a URL");
        let mut headers = HeaderMap::new();
        let header = format!("{name}={value}; Path=/; Secure");
        headers.insert(SET_COOKIE, header.parse().expect("a cookie"));
        self.learn(&url, &headers);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cookies.clear();
    }

    /// Forgets what ends with the browser's window: all cookies without an end.
    pub fn close_window(&mut self) {
        self.cookies.retain(|cookie| cookie.expires.is_some());
    }
}

fn origin(url: &Url) -> (String, u16) {
    (
        url.host_str().unwrap_or_default().to_ascii_lowercase(),
        url.port_or_known_default().unwrap_or(0),
    )
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// RFC 6265 §5.1.4.
fn path_matches(request: &str, cookie: &str) -> bool {
    request == cookie
        || request
            .strip_prefix(cookie)
            .is_some_and(|rest| cookie.ends_with('/') || rest.starts_with('/'))
}

fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((folder, _)) => folder.to_owned(),
    }
}

fn parse(url: &Url, header: &str) -> Option<Cookie> {
    let mut attributes = header.split(';');
    let (name, value) = attributes.next()?.split_once('=')?;
    let mut cookie = Cookie {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
        path: default_path(url),
        secure: false,
        http_only: false,
        same_site: None,
        expires: None,
        origin: origin(url),
    };
    let (mut max_age, mut domain) = (None, false);
    for attribute in attributes {
        let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "samesite" => cookie.same_site = Some(value.to_owned()),
            "max-age" => max_age = value.parse::<i64>().ok(),
            "expires" => cookie.expires = expires(value),
            "domain" => domain = true,
            _ => {}
        }
    }
    if let Some(age) = max_age {
        cookie.expires = Some(u64::try_from(age).map_or(0, |age| now_s().saturating_add(age)));
    }
    let trusted = url.scheme() == "https" || is_loopback(url);
    let prefix_kept = if cookie.name.starts_with("__Host-") {
        cookie.secure && trusted && cookie.path == "/" && !domain
    } else if cookie.name.starts_with("__Secure-") {
        cookie.secure && trusted
    } else {
        true
    };
    prefix_kept.then_some(cookie)
}

fn expires(value: &str) -> Option<u64> {
    // Some servers write `01-Jan-1970`, and a year of two digits is a year of the past here.
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value.replace('-', " "))
        .ok()?;
    Some(u64::try_from(stamp.duration_since(Timestamp::UNIX_EPOCH).as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Jar, SET_COOKIE};
    use reqwest::header::HeaderMap;
    use url::Url;

    fn learn(jar: &mut Jar, url: &str, cookies: &[&str]) {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie.parse().unwrap());
        }
        jar.learn(&Url::parse(url).unwrap(), &headers);
    }

    fn sent(jar: &Jar, url: &str) -> Option<String> {
        jar.header(&Url::parse(url).unwrap())
    }

    #[test]
    fn cookies_go_back_to_their_host_port_and_path() {
        let mut jar = Jar::default();
        learn(
            &mut jar,
            "http://127.0.0.1:1/realms/x/login",
            &["a=1; Path=/realms/x/; Secure", "b=2"],
        );
        assert_eq!(
            sent(&jar, "http://127.0.0.1:1/realms/x/y").as_deref(),
            Some("a=1; b=2")
        );
        assert_eq!(sent(&jar, "http://127.0.0.1:1/realms/xy"), None);
        assert_eq!(sent(&jar, "http://127.0.0.1:2/realms/x/y"), None);
        assert_eq!(sent(&jar, "http://localhost:1/realms/x/y"), None);
    }

    #[test]
    fn secure_cookies_go_to_the_loopback_only_over_plain_http() {
        let mut jar = Jar::default();
        learn(&mut jar, "http://bank.test/", &["a=1; Secure; Path=/"]);
        learn(&mut jar, "http://localhost/", &["b=1; Secure; Path=/"]);
        assert_eq!(sent(&jar, "http://bank.test/"), None);
        assert_eq!(sent(&jar, "http://localhost/").as_deref(), Some("b=1"));
    }

    #[test]
    fn cookies_are_replaced_and_deleted() {
        let mut jar = Jar::default();
        let url = "http://127.0.0.1/";
        learn(&mut jar, url, &["a=1", "a=2", "b=1", "c=1; Max-Age=60"]);
        learn(
            &mut jar,
            url,
            &["b=; Expires=Thu, 01 Jan 1970 00:00:10 GMT", "d=1; Max-Age=0"],
        );
        assert_eq!(sent(&jar, url).as_deref(), Some("a=2; c=1"));
        jar.close_window();
        assert_eq!(sent(&jar, url).as_deref(), Some("c=1"));
    }

    #[test]
    fn a_host_prefix_is_held_to_its_promise() {
        let mut jar = Jar::default();
        let url = "https://bank.test/";
        learn(
            &mut jar,
            url,
            &[
                "__Host-a=1; Path=/",
                "__Host-b=1; Secure; Path=/x",
                "__Host-c=1; Secure; Path=/",
            ],
        );
        assert_eq!(sent(&jar, url).as_deref(), Some("__Host-c=1"));
    }
}
