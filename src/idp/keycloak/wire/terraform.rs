//! The wiring as resources of the `keycloak/keycloak` Terraform provider, for realms that are kept
//! as code: there a list of default scopes that leaves ours out would take the claim from every
//! token, so the lists belong into the code.
//!
//! Lists that the provider manages as a whole (default roles, default scopes of a client) hold
//! what the realm has today and ours. Default scopes depend on the gates: a scope without its gate
//! would reach everybody.

use std::collections::{BTreeMap, BTreeSet};

use super::WirePlanInput;
use super::desired::{self, EVENT_TYPES, RETENTION};
use super::names::{FULL, GROUP, HELD_DEFAULTS, Level, NOTES, RoleRef};
use super::record::Record;
use super::snapshot::{Snapshot, names_in};
use crate::idp::keycloak::representations::ClientScope;

const REALM: &str = "data.keycloak_realm.realm.id";

/// One block: its head, then `name = expression` lines.
struct Block {
    head: String,
    lines: Vec<String>,
}

impl Block {
    fn new(kind: &str, resource: &str, label: &str) -> Self {
        Self {
            head: format!("{kind} \"{resource}\" \"{label}\""),
            lines: Vec::new(),
        }
    }

    fn resource(resource: &str, label: &str) -> Self {
        Self::new("resource", resource, label).raw("realm_id", REALM)
    }

    fn raw(mut self, name: &str, expression: &str) -> Self {
        self.lines.push(format!("{name} = {expression}"));
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        let value = quote(value);
        self.raw(name, &value)
    }

    fn texts<'a>(self, name: &str, values: impl IntoIterator<Item = &'a String>) -> Self {
        let values: Vec<String> = values.into_iter().map(|value| quote(value)).collect();
        self.list(name, &values)
    }

    fn list(self, name: &str, expressions: &[String]) -> Self {
        let body = expressions.iter().fold(String::new(), |body, expression| {
            body + "    " + expression + ",\n"
        });
        self.raw(name, &format!("[\n{body}  ]"))
    }

    fn map(self, name: &str, pairs: &BTreeMap<String, String>) -> Self {
        let line = |(key, value): (&String, &String)| format!("    {} = {}\n", quote(key), quote(value));
        let body = pairs.iter().map(line).collect::<Vec<_>>().concat();
        self.raw(name, &format!("{{\n{body}  }}"))
    }

    fn print(&self, out: &mut String) {
        out.push_str(&self.head);
        out.push_str(" {\n");
        for line in &self.lines {
            out.push_str("  ");
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("}\n\n");
    }
}

/// A quoted template without interpolation.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' if rest.peek() == Some(&'{') => out.extend([letter, letter]),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A label that no other name gets: letters, digits and `-` stand for themselves.
fn label(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => out.push(letter),
            '_' => out.push_str("__"),
            other => out.extend(["_x", &format!("{:x}", u32::from(other)), "_"]),
        }
    }
    out
}

fn role_label(name: &str) -> String {
    label(name.strip_prefix("reentry-").unwrap_or(name))
}

struct Emitter<'a> {
    input: &'a WirePlanInput,
    snapshot: &'a Snapshot,
    record: &'a Record,
    levels: BTreeSet<Level>,
    blocks: Vec<Block>,
    /// Clients and roles of the realm that are referred to.
    clients: BTreeSet<String>,
    roles: BTreeSet<RoleRef>,
    scopes: BTreeSet<String>,
    gates: Vec<String>,
}

/// The resources, for a realm as `snapshot` has it.
#[must_use]
pub fn render(input: &WirePlanInput, snapshot: &Snapshot, record: &Record) -> String {
    let mut emitter = Emitter {
        input,
        snapshot,
        record,
        levels: input.all_levels(),
        blocks: Vec::new(),
        clients: BTreeSet::new(),
        roles: BTreeSet::new(),
        scopes: BTreeSet::new(),
        gates: Vec::new(),
    };
    emitter.roles();
    emitter.scopes();
    emitter.gates();
    emitter.groups();
    emitter.runtime();
    emitter.broker();
    emitter.default_scopes();
    emitter.events();
    emitter.print()
}

impl Emitter<'_> {
    fn role_id(&mut self, role: &RoleRef) -> String {
        let ours = role.client.is_none() && (role.name == HELD_DEFAULTS || desired::is_ours(&role.name));
        if ours {
            return format!("keycloak_role.{}.id", role_label(&role.name));
        }
        self.roles.insert(role.clone());
        self.clients.extend(role.client.clone());
        format!("data.keycloak_role.{}.id", label(&role.to_string()))
    }

    fn roles(&mut self) {
        for (name, description) in desired::plain_roles(&self.levels) {
            let block = Block::resource("keycloak_role", &role_label(&name));
            self.blocks
                .push(block.text("name", &name).text("description", &description));
        }
        let kept = desired::held_defaults(self.snapshot, &self.input.dropped_defaults);
        let kept: Vec<String> = kept.iter().map(|role| self.role_id(role)).collect();
        let block = Block::resource("keycloak_role", &role_label(HELD_DEFAULTS)).text("name", HELD_DEFAULTS);
        self.blocks.push(block.list("composite_roles", &kept));
        let default = self.snapshot.default_role();
        let children = self.snapshot.children(&default.name);
        let mut names: Vec<String> = children
            .iter()
            .filter(|role| **role != RoleRef::realm(FULL))
            .map(|role| quote(&role.to_string()))
            .collect();
        names.push(format!("keycloak_role.{}.name", role_label(FULL)));
        self.blocks
            .push(Block::resource("keycloak_default_roles", "realm").list("default_roles", &names));
        let id = format!(
            "{}/{}",
            self.snapshot.realm(),
            default.id.as_deref().unwrap_or_default()
        );
        let import = Block {
            head: "import".to_owned(),
            lines: Vec::new(),
        };
        self.blocks
            .push(import.raw("to", "keycloak_default_roles.realm").text("id", &id));
    }

    fn scopes(&mut self) {
        for (scope, gate) in desired::scopes(&self.levels) {
            let label = role_label(&scope.name);
            let shown = scope
                .attributes
                .get("include.in.token.scope")
                .map_or("true", String::as_str);
            let block = Block::resource("keycloak_openid_client_scope", &label)
                .text("name", &scope.name)
                .text("description", scope.description.as_deref().unwrap_or_default())
                .raw("include_in_token_scope", shown);
            self.blocks.push(block);
            let id = format!("keycloak_openid_client_scope.{label}.id");
            self.mapper(&scope, &label, &id);
            self.gate(&label, &id, &gate);
            let block =
                Block::resource("keycloak_openid_default_client_scope", &label).raw("client_scope_id", &id);
            let first = format!("[keycloak_generic_role_mapper.{label}__{label}]");
            self.blocks.push(block.raw("depends_on", &first));
        }
    }

    fn mapper(&mut self, scope: &ClientScope, label: &str, id: &str) {
        for mapper in &scope.protocol_mappers {
            let block = Block::resource("keycloak_generic_protocol_mapper", label)
                .raw("client_scope_id", id)
                .text("name", &mapper.name)
                .text("protocol", "openid-connect")
                .text("protocol_mapper", &mapper.protocol_mapper)
                .map("config", &mapper.config);
            self.blocks.push(block);
        }
    }

    fn gate(&mut self, scope_label: &str, scope_id: &str, role: &RoleRef) {
        let label = format!("{scope_label}__{}", role_label(&role.name));
        let role_id = self.role_id(role);
        let block = Block::resource("keycloak_generic_role_mapper", &label);
        self.blocks
            .push(block.raw("client_scope_id", scope_id).raw("role_id", &role_id));
        self.gates.push(format!("keycloak_generic_role_mapper.{label}"));
    }

    fn gates(&mut self) {
        for (scope, roles) in desired::gates(self.input, self.snapshot, self.record, &self.levels) {
            let scope_label = format!("scope_{}", label(&scope));
            let id = format!("data.keycloak_openid_client_scope.{scope_label}.id");
            self.scopes.insert(scope);
            for role in roles {
                self.gate(&scope_label, &id, &role);
            }
        }
    }

    fn groups(&mut self) {
        let attributes = desired::root_attributes(self.snapshot);
        let attributes = attributes
            .into_iter()
            .map(|(name, values)| (name, values.join("##")))
            .collect();
        let root = Block::resource("keycloak_group", "reentry").text("name", GROUP.trim_start_matches('/'));
        self.blocks.push(root.map("attributes", &attributes));
        for level in self.levels.clone() {
            let label = role_label(&level.object());
            let group =
                Block::resource("keycloak_group", &label).raw("parent_id", "keycloak_group.reentry.id");
            self.blocks.push(group.text("name", &level.group()));
            let roles: Vec<String> = desired::group_roles(&level)
                .iter()
                .map(|role| self.role_id(role))
                .collect();
            let block = Block::resource("keycloak_group_roles", &label);
            let block = block.raw("group_id", &format!("keycloak_group.{label}.id"));
            self.blocks.push(block.list("role_ids", &roles));
        }
        for note in NOTES {
            let label = note.replace('.', "_");
            let group = Block::resource("keycloak_group", &label);
            let group = group.raw("parent_id", "keycloak_group.reentry.id");
            self.blocks.push(group.text("name", note));
        }
    }

    fn runtime(&mut self) {
        let client = Block::resource("keycloak_openid_client", "reentry")
            .text("client_id", &self.input.runtime_client)
            .text("name", "Reentry")
            .text("access_type", "CONFIDENTIAL")
            .raw("service_accounts_enabled", "true")
            .raw("standard_flow_enabled", "false")
            .raw("direct_access_grants_enabled", "false");
        self.blocks.push(client);
        self.clients.insert("realm-management".to_owned());
        for role in desired::runtime_roles(self.input) {
            let block = Block::resource("keycloak_openid_client_service_account_role", role)
                .raw(
                    "service_account_user_id",
                    "keycloak_openid_client.reentry.service_account_user_id",
                )
                .raw("client_id", "data.keycloak_openid_client.realm-management.id")
                .text("role", role);
            self.blocks.push(block);
        }
    }

    fn broker(&mut self) {
        let Some(broker) = &self.input.broker else {
            return;
        };
        let mut block = Block::resource("keycloak_openid_client", "reentry__broker")
            .text("client_id", &broker.client_id)
            .text("name", "Reentry broker")
            .text("access_type", "CONFIDENTIAL")
            .raw("standard_flow_enabled", "true")
            .raw("direct_access_grants_enabled", "false")
            .text("pkce_code_challenge_method", "S256")
            .texts("valid_redirect_uris", [&broker.redirect_uri.to_string()])
            .texts(
                "valid_post_logout_redirect_uris",
                [&format!("{}/logout", broker.redirect_uri)],
            );
        if let Some(url) = &broker.backchannel_logout {
            block = block
                .text("backchannel_logout_url", url.as_str())
                .raw("backchannel_logout_session_required", "true");
        }
        self.blocks.push(block);
    }

    fn default_scopes(&mut self) {
        let ours: Vec<String> = desired::scopes(&self.levels)
            .into_iter()
            .map(|(scope, _)| format!("keycloak_openid_client_scope.{}.name", role_label(&scope.name)))
            .collect();
        let made = |client_id: &str| {
            client_id == self.input.runtime_client
                || self
                    .input
                    .broker
                    .as_ref()
                    .is_some_and(|broker| broker.client_id == client_id)
        };
        let snapshot = self.snapshot;
        for client in snapshot.token_clients().filter(|client| !made(&client.client_id)) {
            let today = names_in(client, "defaultClientScopes");
            let today = today
                .iter()
                .filter(|scope| !desired::is_ours(scope))
                .map(|scope| quote(scope));
            let scopes: Vec<String> = today.chain(ours.iter().cloned()).collect();
            let label = label(&client.client_id);
            let block = Block::resource("keycloak_openid_client_default_scopes", &label)
                .raw("client_id", &format!("data.keycloak_openid_client.{label}.id"))
                .list("default_scopes", &scopes)
                .list("depends_on", &self.gates);
            self.clients.insert(client.client_id.clone());
            self.blocks.push(block);
        }
    }

    fn events(&mut self) {
        let snapshot = self.snapshot;
        let kept = match snapshot.events_expiration() {
            Some(seconds) => seconds.max(RETENTION),
            None if snapshot.events_enabled() => 0,
            None => RETENTION,
        };
        let mut block = Block::resource("keycloak_realm_events", "realm")
            .raw("events_enabled", "true")
            .raw("events_expiration", &kept.to_string())
            .raw("admin_events_enabled", "true")
            .raw("admin_events_details_enabled", "true")
            .texts("events_listeners", snapshot.event_listeners());
        if !snapshot.event_types().is_empty() {
            let needed = EVENT_TYPES.iter().map(|kind| (*kind).to_owned());
            let needed: BTreeSet<String> = needed
                .filter(|kind| snapshot.known_event_types.contains(kind))
                .collect();
            block = block.texts("enabled_event_types", needed.union(snapshot.event_types()));
        }
        self.blocks.push(block);
    }

    fn print(&self) -> String {
        let mut out = String::from(
            "# Token mode of Reentry. Lists that the provider manages as a whole hold what the realm has\n\
             # today; a list of default scopes elsewhere in your code must gain the scopes below.\n\
             # Not here, because the provider has no resource for it alone: the realm attribute\n",
        );
        out.extend([
            "#   adminEventsExpiration = ",
            &quote(&RETENTION.to_string()),
            "\n",
        ]);
        if self.input.force_login_after_reset {
            out.push_str("# and Force login after reset, in the e-mail step of the reset flow.\n");
        }
        out.push_str("\nterraform {\n  required_providers {\n    keycloak = {\n      source = \"keycloak/keycloak\"\n    }\n  }\n}\n\n");
        let realm = Block::new("data", "keycloak_realm", "realm").text("realm", self.snapshot.realm());
        realm.print(&mut out);
        let data = |resource: &str, label: &str| Block::new("data", resource, label).raw("realm_id", REALM);
        for client in &self.clients {
            data("keycloak_openid_client", &label(client))
                .text("client_id", client)
                .print(&mut out);
        }
        for role in &self.roles {
            let mut block = data("keycloak_role", &label(&role.to_string())).text("name", &role.name);
            if let Some(client) = &role.client {
                block = block.raw(
                    "client_id",
                    &format!("data.keycloak_openid_client.{}.id", label(client)),
                );
            }
            block.print(&mut out);
        }
        for scope in &self.scopes {
            data("keycloak_openid_client_scope", &format!("scope_{}", label(scope)))
                .text("name", scope)
                .print(&mut out);
        }
        for block in &self.blocks {
            block.print(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_realm_stay_text() {
        assert_eq!(
            quote("a\"b\\c ${x} %{y} $z\n"),
            "\"a\\\"b\\\\c $${x} %%{y} $z\\n\""
        );
        assert_eq!(label("account-console"), "account-console");
        assert_ne!(label("a.b"), label("a_b"));
        assert!(
            label("pay:write/1")
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
        );
    }
}
