//! One bounded HTTP exchange with an IdP, or with a client that publishes keys: deadlines, a cap on the body, no redirects.

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
    #[error(transparent)]
    Address(#[from] openidconnect::http::uri::InvalidUri),
    #[error("the answer has the status {0}")]
    Status(u16),
    #[error("the answer is no text")]
    NotText,
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

    /// The text at an address.
    pub(super) async fn get(&self, url: &str) -> Result<String, TransportFault> {
        let mut request = HttpRequest::new(Vec::new());
        *request.uri_mut() = url.parse()?;
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(TransportFault::Status(answer.status().as_u16()));
        }
        String::from_utf8(answer.into_body()).map_err(|_| TransportFault::NotText)
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
