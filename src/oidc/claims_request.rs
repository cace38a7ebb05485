//! The `claims` parameter (OIDC Core §5.5).

use serde_json::Value;

/// What the parameter asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimsRequest {
    /// The `sub` that it must be.
    pub sub: Option<String>,
    /// Values of which the `acr` must be one; empty: any.
    pub essential_acr: Option<Vec<String>>,
    /// What goes to the IdP: all of it but `sub`, as JSON text.
    pub upstream: Option<String>,
}

/// Why the parameter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a JSON object of objects.
    #[error("claims is not a JSON object as OpenID Connect defines it")]
    Shape,
    /// One of our claims: nobody asks for a value of those (ISS-9).
    #[error("the claim {0} is reserved")]
    Reserved(String),
}

/// Reads the parameter.
///
/// # Errors
/// [`Fault`].
pub fn parse(text: &str) -> Result<ClaimsRequest, Fault> {
    let Ok(Value::Object(mut parts)) = serde_json::from_str::<Value>(text) else {
        return Err(Fault::Shape);
    };
    let mut found = ClaimsRequest::default();
    for part in ["id_token", "userinfo"] {
        let Some(value) = parts.get_mut(part) else {
            continue;
        };
        let members = value.as_object_mut().ok_or(Fault::Shape)?;
        if let Some(name) = members.keys().find(|n| n.starts_with("recovery_")) {
            return Err(Fault::Reserved(name.clone()));
        }
        if members.values().any(|v| !v.is_object() && !v.is_null()) {
            return Err(Fault::Shape);
        }
        if let Some(sub) = members.shift_remove("sub").as_ref().and_then(|s| s.get("value")) {
            found.sub = Some(sub.as_str().ok_or(Fault::Shape)?.to_owned());
        }
        if part == "id_token" {
            found.essential_acr = members.get("acr").map_or(Ok(None), essential)?;
        }
    }
    parts.retain(|_, v| v.as_object().is_some_and(|m| !m.is_empty()));
    found.upstream = (!parts.is_empty()).then(|| Value::Object(parts).to_string());
    Ok(found)
}

fn essential(acr: &Value) -> Result<Option<Vec<String>>, Fault> {
    let Some(acr) = acr
        .as_object()
        .filter(|a| a.get("essential") == Some(&Value::Bool(true)))
    else {
        return Ok(None);
    };
    let text = |v: &Value| v.as_str().map(str::to_owned).ok_or(Fault::Shape);
    let value = acr.get("value").map(text).transpose()?;
    let values = match acr.get("values") {
        Some(Value::Array(values)) => values.iter().map(text).collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(Fault::Shape),
        None => Vec::new(),
    };
    Ok(Some(value.into_iter().chain(values).collect()))
}
