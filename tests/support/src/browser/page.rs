//! A loaded page: its text, its links, its forms.

use reqwest::Method;
use reqwest::header::HeaderMap;
use scraper::{ElementRef, Html, Selector};
use url::Url;

/// The end of a navigation.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where the navigation ended.
    pub url: Url,
    /// Status of the last answer; 0 when the navigation stopped before asking.
    pub status: u16,
    /// Headers of the last answer.
    pub headers: HeaderMap,
    /// Body of the last answer.
    pub body: String,
}

/// A link of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Visible text, white space collapsed.
    pub text: String,
    /// Absolute target.
    pub url: Url,
}

/// A form, ready to be filled in and given to `Browser::submit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// `id` attribute, empty without one.
    pub id: String,
    /// Where it goes.
    pub action: Url,
    /// Whether it is posted.
    pub post: bool,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    value: String,
    kind: String,
    /// Whether it is part of the submission as it stands.
    on: bool,
}

impl Page {
    pub(super) fn new(url: Url, status: u16, headers: HeaderMap, body: String) -> Self {
        Self {
            url,
            status,
            headers,
            body,
        }
    }

    pub(super) fn stop(url: Url) -> Self {
        Self::new(url, 0, HeaderMap::new(), String::new())
    }

    /// Whether the navigation ended before a URL that the browser was told to stop at.
    pub fn is_stop(&self) -> bool {
        self.status == 0
    }

    /// A parameter of this page's URL: from the query, else from the fragment.
    pub fn query(&self, name: &str) -> Option<String> {
        let fragment = self.url.fragment().unwrap_or_default();
        let mut pairs = self
            .url
            .query_pairs()
            .chain(url::form_urlencoded::parse(fragment.as_bytes()));
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The URL, or a panic with the page's text when the navigation did not reach a stop.
    pub fn stopped(&self) -> &Url {
        assert!(
            self.is_stop(),
            "the redirect URI was not reached:\n{}",
            self.describe()
        );
        &self.url
    }

    /// A header of the last answer as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The visible text, white space collapsed.
    pub fn text(&self) -> String {
        let document = Html::parse_document(&self.body);
        let mut text = String::new();
        for node in document.root_element().descendants() {
            let hidden = |name: &str| matches!(name, "script" | "style" | "template" | "head" | "noscript");
            let inside = node
                .ancestors()
                .filter_map(ElementRef::wrap)
                .any(|one| hidden(one.value().name()));
            if let (Some(piece), false) = (node.value().as_text(), inside) {
                text.push_str(piece);
                text.push(' ');
            }
        }
        collapse(&text)
    }

    /// The collapsed text of the first element that matches a CSS selector.
    pub fn text_of(&self, css: &str) -> Option<String> {
        let document = Html::parse_document(&self.body);
        document
            .select(&selector(css))
            .next()
            .map(|element| collapse(&element.text().collect::<String>()))
    }

    /// An attribute of the first element that matches a CSS selector.
    pub fn attribute(&self, css: &str, name: &str) -> Option<String> {
        let document = Html::parse_document(&self.body);
        document
            .select(&selector(css))
            .next()?
            .value()
            .attr(name)
            .map(str::to_owned)
    }

    /// How many elements match a CSS selector.
    pub fn count(&self, css: &str) -> usize {
        Html::parse_document(&self.body).select(&selector(css)).count()
    }

    /// The page's title.
    pub fn title(&self) -> String {
        self.text_of("title").unwrap_or_default()
    }

    /// All links with an http or https target.
    pub fn links(&self) -> Vec<Link> {
        let document = Html::parse_document(&self.body);
        let base = self.base(&document);
        let anchors = selector("a[href]");
        let links = document.select(&anchors).filter_map(|anchor| {
            let url = base.join(anchor.value().attr("href")?).ok()?;
            let text = collapse(&anchor.text().collect::<String>());
            matches!(url.scheme(), "http" | "https").then_some(Link { text, url })
        });
        links.collect()
    }

    /// The first link whose text contains `what`, else the first whose target does; panics without one.
    pub fn link(&self, what: &str) -> Link {
        let links = self.links();
        let by_text = links.iter().find(|link| link.text.contains(what));
        let found = by_text.or_else(|| links.iter().find(|link| link.url.as_str().contains(what)));
        found
            .unwrap_or_else(|| panic!("no link {what:?}:\n{}", self.describe()))
            .clone()
    }

    /// All forms, filled in as the page says.
    pub fn forms(&self) -> Vec<Form> {
        self.select_forms("form")
    }

    /// Whether a form matches the CSS selector.
    pub fn has_form(&self, css: &str) -> bool {
        !self.select_forms(css).is_empty()
    }

    /// The first form that matches a CSS selector (`#id`, `form[action*="x"]`); panics without one.
    pub fn form(&self, css: &str) -> Form {
        let mut forms = self.select_forms(css);
        assert!(!forms.is_empty(), "no form {css:?}:\n{}", self.describe());
        forms.remove(0)
    }

    /// What a person would need to know to understand a failing test: URL, status, text, forms.
    pub fn describe(&self) -> String {
        let forms: Vec<_> = self
            .forms()
            .into_iter()
            .map(|form| (form.id, form.action))
            .collect();
        format!("{} {}\nforms: {forms:?}\n{}", self.status, self.url, self.text())
    }

    fn base(&self, document: &Html) -> Url {
        let tag = document
            .select(&selector("base[href]"))
            .next()
            .and_then(|base| base.value().attr("href"));
        tag.and_then(|href| self.url.join(href).ok())
            .unwrap_or_else(|| self.url.clone())
    }

    fn select_forms(&self, css: &str) -> Vec<Form> {
        let document = Html::parse_document(&self.body);
        let base = self.base(&document);
        let forms = selector(css);
        document
            .select(&forms)
            .filter(|one| one.value().name() == "form")
            .map(|one| read(&base, &document, one))
            .collect()
    }
}

impl Form {
    /// Fills in a field; chooses this value of a radio group or a select; panics when there is no such field.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let mut found = false;
        for field in self.fields.iter_mut().filter(|field| field.name == name) {
            match field.kind.as_str() {
                "radio" | "option" | "checkbox" => {
                    field.on = field.value == value;
                    found |= field.on;
                }
                "submit" => {}
                _ => {
                    value.clone_into(&mut field.value);
                    found = true;
                }
            }
        }
        assert!(found, "no field {name:?} that takes {value:?}: {self:#?}");
        self
    }

    /// Ticks a checkbox.
    #[must_use]
    pub fn tick(self, name: &str) -> Self {
        self.switch(name, true)
    }

    /// Unticks a checkbox.
    #[must_use]
    pub fn untick(self, name: &str) -> Self {
        self.switch(name, false)
    }

    /// Submits with the button of this name.
    #[must_use]
    pub fn press(mut self, name: &str) -> Self {
        let button = self
            .fields
            .iter_mut()
            .find(|field| field.name == name && field.kind == "submit");
        match button {
            Some(button) => button.on = true,
            None => panic!("no button {name:?}: {self:#?}"),
        }
        self
    }

    /// Sends a field that is not part of the form, as an attacker would.
    #[must_use]
    pub fn smuggle(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|field| field.name != name);
        self.fields.push(Field {
            name: name.to_owned(),
            value: value.to_owned(),
            kind: "text".to_owned(),
            on: true,
        });
        self
    }

    /// The value a field would be sent with now.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|field| field.on && field.name == name)
            .map(|field| field.value.as_str())
    }

    /// Whether there is a field or button of this name.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// The names and values it would be sent with now, in order.
    pub fn values(&self) -> Vec<(&str, &str)> {
        let on = self
            .fields
            .iter()
            .filter(|field| field.on && !field.name.is_empty());
        on.map(|field| (field.name.as_str(), field.value.as_str()))
            .collect()
    }

    fn switch(mut self, name: &str, on: bool) -> Self {
        let field = self
            .fields
            .iter_mut()
            .find(|field| field.name == name && field.kind == "checkbox");
        match field {
            Some(field) => field.on = on,
            None => panic!("no checkbox {name:?}: {self:#?}"),
        }
        self
    }

    pub(super) fn into_request(mut self) -> (Method, Url, Option<String>) {
        // Enter in a field presses the form's first button.
        let pressed = self.fields.iter().any(|field| field.kind == "submit" && field.on);
        if let (false, Some(button)) = (
            pressed,
            self.fields.iter_mut().find(|field| field.kind == "submit"),
        ) {
            button.on = true;
        }
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(self.values())
            .finish();
        if self.post {
            return (Method::POST, self.action, Some(body));
        }
        let mut url = self.action;
        url.set_query(Some(&body));
        (Method::GET, url, None)
    }
}

fn read(base: &Url, document: &Html, form: ElementRef<'_>) -> Form {
    let attribute = |name: &str| form.value().attr(name).unwrap_or_default();
    let action = match attribute("action") {
        "" => base.clone(),
        action => base
            .join(action)
            .unwrap_or_else(|error| panic!("action {action:?}: {error}")),
    };
    let id = attribute("id").to_owned();
    let (selector, mut fields) = (selector(CONTROLS), Vec::new());
    for element in form.select(&selector) {
        if element.value().attr("form").is_none_or(|owner| owner == id) {
            controls(element, &mut fields);
        }
    }
    if !id.is_empty() {
        let outside = document.select(&selector).filter(|element| {
            let inside = element.ancestors().any(|node| node.id() == form.id());
            element.value().attr("form") == Some(id.as_str()) && !inside
        });
        outside.for_each(|element| controls(element, &mut fields));
    }
    Form {
        id,
        action,
        post: attribute("method").eq_ignore_ascii_case("post"),
        fields,
    }
}

const CONTROLS: &str = "input, button, select, textarea";

fn controls(element: ElementRef<'_>, fields: &mut Vec<Field>) {
    let attribute = |name: &str| element.value().attr(name);
    if attribute("disabled").is_some() {
        return;
    }
    let name = attribute("name").unwrap_or_default().to_owned();
    let field = |value: &str, kind: &str, on: bool| Field {
        name: name.clone(),
        value: value.to_owned(),
        kind: kind.to_owned(),
        on,
    };
    match element.value().name() {
        "textarea" => fields.push(field(&element.text().collect::<String>(), "text", true)),
        "select" => {
            let options = selector("option");
            let options: Vec<_> = element.select(&options).collect();
            let chosen = options
                .iter()
                .position(|option| option.value().attr("selected").is_some())
                .unwrap_or(0);
            for (at, option) in options.iter().enumerate() {
                let text = collapse(&option.text().collect::<String>());
                fields.push(field(
                    option.value().attr("value").unwrap_or(&text),
                    "option",
                    at == chosen,
                ));
            }
        }
        tag => {
            let standard = if tag == "button" { "submit" } else { "text" };
            let kind = attribute("type").unwrap_or(standard).to_ascii_lowercase();
            let value = attribute("value");
            match kind.as_str() {
                "button" | "reset" => {}
                "submit" | "image" => fields.push(field(value.unwrap_or_default(), "submit", false)),
                "checkbox" | "radio" => {
                    fields.push(field(
                        value.unwrap_or("on"),
                        &kind,
                        attribute("checked").is_some(),
                    ));
                }
                _ => fields.push(field(value.unwrap_or_default(), &kind, true)),
            }
        }
    }
}

fn selector(css: &str) -> Selector {
    Selector::parse(css).unwrap_or_else(|error| panic!("CSS selector {css:?}: {error}"))
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, Method, Page};
    use url::Url;

    fn page(body: &str) -> Page {
        Page::new(
            Url::parse("http://x.test/a/b?c=d").unwrap(),
            200,
            HeaderMap::new(),
            body.to_owned(),
        )
    }

    const FORM: &str = r#"<head><title> T </title><style>no</style></head><body data-page-id=p>
        <h1>Hello <b>you</b></h1><script>var no;</script>
        <form id="f" method="POST" action="../take?x=1&amp;y=2">
          <input name=u value="a&amp;b"><input type=hidden name=h value=1>
          <input type=checkbox name=all checked><input type=checkbox name=none value=n>
          <input type=radio name=r value=1 checked><input type=radio name=r value=2>
          <select name=s><option value=1>one<option selected>two</select>
          <textarea name=t>
text</textarea><input name=gone disabled value=1>
          <button type=button name=toggle>x</button>
          <input type=submit name=ok value=Yes><button name=cancel value=No>No</button>
        </form><input form=f name=far value=off>
        <a href="/go?x=1">Go <i>there</i></a><a href="mailto:x@y">mail</a></body>"#;

    #[test]
    fn a_form_is_sent_as_a_browser_would() {
        let form = page(FORM)
            .form("#f")
            .set("u", "me & you")
            .set("r", "2")
            .tick("none")
            .untick("all");
        let (method, url, body) = form.clone().into_request();
        assert_eq!(
            (method, url.as_str()),
            (Method::POST, "http://x.test/take?x=1&y=2")
        );
        assert_eq!(
            body.unwrap(),
            "u=me+%26+you&h=1&none=n&r=2&s=two&t=text&ok=Yes&far=off"
        );
        let (_, _, body) = form.set("s", "1").press("cancel").into_request();
        assert_eq!(
            body.unwrap(),
            "u=me+%26+you&h=1&none=n&r=2&s=1&t=text&cancel=No&far=off"
        );
    }

    #[test]
    #[should_panic(expected = "no field \"nobody\"")]
    fn a_field_that_is_not_there_is_a_failure() {
        let _ = page(FORM).form("#f").set("nobody", "1");
    }

    #[test]
    fn a_get_form_replaces_the_query() {
        let page = page("<form action='?old=1'><input name=q value='a b'></form>");
        let (method, url, body) = page.form("form").into_request();
        assert_eq!(
            (method, url.as_str(), body),
            (Method::GET, "http://x.test/a/b?q=a+b", None)
        );
    }

    #[test]
    fn text_links_and_attributes_are_read() {
        let page = page(FORM);
        assert_eq!(page.title(), "T");
        assert!(page.text().starts_with("Hello you"), "{}", page.text());
        assert!(!page.text().contains("no;"));
        assert_eq!(page.link("Go there").url.as_str(), "http://x.test/go?x=1");
        assert_eq!(page.links().len(), 1);
        assert_eq!(page.attribute("body", "data-page-id").as_deref(), Some("p"));
    }

    #[test]
    fn parameters_come_from_query_and_fragment() {
        let stop = Page::stop(Url::parse("http://x.test/cb?code=1#state=2").unwrap());
        assert_eq!(
            (stop.query("code"), stop.query("state")),
            (Some("1".into()), Some("2".into()))
        );
        assert_eq!(stop.stopped().path(), "/cb");
    }
}
