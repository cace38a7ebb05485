//! A browser without JavaScript: it keeps cookies, follows redirects one by one and tells each hop, reads
//! HTML with a real parser, fills in forms and submits them.
//!
//! HTTP libraries' own cookie jars drop `Secure` cookies on plain http, while browsers send them to the
//! loopback; hence a jar of our own.

mod jar;
mod page;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use std::time::Duration;
use url::Url;

pub use jar::{Cookie, Jar};
pub use page::{Form, Link, Page};

const MAX_HOPS: usize = 30;

/// One request of a navigation and where its answer led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Request method.
    pub method: String,
    /// Requested URL.
    pub url: Url,
    /// Status of the answer.
    pub status: u16,
    /// Where a redirect pointed, made absolute.
    pub location: Option<Url>,
}

/// One person's browser. A clone shares nothing with its original: it is a stolen copy of the cookies.
#[derive(Debug, Clone)]
pub struct Browser {
    http: reqwest::Client,
    jar: Jar,
    stops: Vec<String>,
    headers: HeaderMap,
    log: Vec<Hop>,
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}

impl Browser {
    /// A browser that knows no cookie.
    pub fn new() -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .user_agent("Mozilla/5.0 (X11; Linux x86_64) reentry-test-support")
            .build()
            .expect("an HTTP client");
        let mut headers = HeaderMap::new();
        headers.insert(
            "accept",
            HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8"),
        );
        headers.insert("accept-language", HeaderValue::from_static("en"));
        Self {
            http,
            jar: Jar::default(),
            stops: Vec::new(),
            headers,
            log: Vec::new(),
        }
    }

    /// Never requests a URL that starts with `prefix`: a navigation that leads there ends with a page that
    /// is [`Page::is_stop`]. This stands for a relying party's redirect URI where nobody listens.
    #[must_use]
    pub fn stopping_at(mut self, prefix: &str) -> Self {
        self.stops.push(prefix.to_owned());
        self
    }

    /// Sends this header with every request from now on.
    pub fn set_header(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers
            .insert(name, HeaderValue::from_str(value).expect("a header value"));
    }

    /// The cookies, to look at, to add to or to clear.
    pub fn jar(&mut self) -> &mut Jar {
        &mut self.jar
    }

    /// The hops of the last navigation.
    pub fn log(&self) -> &[Hop] {
        &self.log
    }

    /// Opens a URL as if typed into the address bar.
    pub async fn get(&mut self, url: impl AsRef<str>) -> Page {
        let url = Url::parse(url.as_ref()).unwrap_or_else(|error| panic!("{:?}: {error}", url.as_ref()));
        self.navigate(Method::GET, url, None).await
    }

    /// Posts an urlencoded form to a URL, without a page before it.
    pub async fn post(&mut self, url: impl AsRef<str>, fields: &[(&str, &str)]) -> Page {
        let url = Url::parse(url.as_ref()).unwrap_or_else(|error| panic!("{:?}: {error}", url.as_ref()));
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.navigate(Method::POST, url, Some(body)).await
    }

    /// Follows the link of this page whose text or target contains `what`.
    pub async fn follow(&mut self, page: &Page, what: &str) -> Page {
        let url = page.link(what).url;
        self.navigate(Method::GET, url, None).await
    }

    /// Submits a form of a page.
    pub async fn submit(&mut self, form: Form) -> Page {
        let (method, url, body) = form.into_request();
        self.navigate(method, url, body).await
    }

    async fn navigate(&mut self, method: Method, url: Url, body: Option<String>) -> Page {
        self.log.clear();
        let (mut method, mut url, mut body) = (method, url, body);
        for _ in 0..MAX_HOPS {
            if self
                .stops
                .iter()
                .any(|prefix| url.as_str().starts_with(prefix.as_str()))
            {
                return Page::stop(url);
            }
            let response = self.request(&method, &url, body.clone()).await;
            let status = response.status().as_u16();
            self.jar.learn(&url, response.headers());
            let location = response
                .headers()
                .get(LOCATION)
                .filter(|_| (300..400).contains(&status));
            let location = location.map(|location| {
                let text = String::from_utf8_lossy(location.as_bytes()).into_owned();
                url.join(&text)
                    .unwrap_or_else(|error| panic!("Location {text:?}: {error}"))
            });
            self.log.push(Hop {
                method: method.to_string(),
                url: url.clone(),
                status,
                location: location.clone(),
            });
            let Some(mut next) = location else {
                let headers = response.headers().clone();
                let text = response
                    .text()
                    .await
                    .unwrap_or_else(|error| panic!("{url}: {error}"));
                return Page::new(url, status, headers, text);
            };
            if next.fragment().is_none() {
                next.set_fragment(url.fragment());
            }
            if !matches!(status, 307 | 308) && method != Method::HEAD {
                method = Method::GET;
                body = None;
            }
            url = next;
        }
        panic!("more than {MAX_HOPS} redirects: {:#?}", self.log);
    }

    async fn request(&self, method: &Method, url: &Url, body: Option<String>) -> reqwest::Response {
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .headers(self.headers.clone());
        if let Some(cookies) = self.jar.header(url) {
            request = request.header("cookie", cookies);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .header("origin", url.origin().ascii_serialization())
                .body(body);
        }
        match request.send().await {
            Ok(response) => response,
            Err(error) => panic!("{method} {url}: {error:?}\nhops so far: {:#?}", self.log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Browser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers by the request's path and tells what it was sent.
    async fn site() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 8192];
                let read = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let (status, extra, body) = match path.as_str() {
                    "/start" => (
                        "302 Found",
                        "Location: /form\r\nSet-Cookie: a=1; Secure; HttpOnly\r\n",
                        String::new(),
                    ),
                    "/form" => (
                        "200 OK",
                        "",
                        "<form id=f method=post action='/take?x=1'><input type=hidden \
                        name=h value='&lt;1&gt;'><input name=u></form>"
                            .to_owned(),
                    ),
                    "/take?x=1" => (
                        "303 See Other",
                        "Location: http://rp.invalid/cb?code=c\r\n",
                        String::new(),
                    ),
                    _ => ("200 OK", "", request.clone()),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\n{extra}Content-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        base
    }

    #[tokio::test]
    async fn it_follows_keeps_cookies_submits_and_stops() {
        let base = site().await;
        let mut browser = Browser::new().stopping_at("http://rp.invalid/cb");
        let page = browser.get(format!("{base}/start")).await;
        assert_eq!(
            browser.log().iter().map(|hop| hop.status).collect::<Vec<_>>(),
            [302, 200]
        );
        let end = browser.submit(page.form("#f").set("u", "me")).await;
        assert!(end.is_stop());
        assert_eq!(end.query("code").as_deref(), Some("c"));
        let echo = browser.get(format!("{base}/echo")).await;
        assert!(
            echo.body.contains("cookie: a=1"),
            "a Secure cookie goes to the loopback: {}",
            echo.body
        );
        let other = Browser::new().get(format!("{base}/echo")).await;
        assert!(!other.body.contains("cookie:"));
    }
}
