//! One bounded HTTP exchange with an IdP: deadlines, a cap on the body, no redirects.

use std::pin::Pin;
use std::time::Duration;

use crate::ports::trace;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};

/// Largest answer in octets.
const MAX_BODY: usize = 512 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportFault {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the answer is larger than {MAX_BODY} octets")]
    TooLarge,
}

/// The client.
#[derive(Clone, Debug)]
pub(super) struct Transport(reqwest::Client);

impl Transport {
    pub(super) fn new(builder: reqwest::ClientBuilder) -> Result<Self, reqwest::Error> {
        let client = builder
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(8))
            .build()?;
        Ok(Self(client))
    }

    /// Where an address leads on to, without following it; `None` when it answers with something else.
    pub(super) async fn location(&self, url: &str) -> Result<Option<String>, String> {
        let answer = self.0.get(url).send().await.map_err(|e| e.to_string())?;
        let to = answer.headers().get("location").and_then(|to| to.to_str().ok());
        Ok(to.map(str::to_owned))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportFault> {
        let mut request: reqwest::Request = request.try_into()?;
        for (name, value) in trace::headers() {
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        }
        let mut response = self.0.execute(request).await?;
        let mut answer = HttpResponse::new(Vec::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        while let Some(chunk) = response.chunk().await? {
            if answer.body().len() + chunk.len() > MAX_BODY {
                return Err(TransportFault::TooLarge);
            }
            answer.body_mut().extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

impl<'c> AsyncHttpClient<'c> for Transport {
    type Error = TransportFault;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TransportFault>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
