//! A real OpenLDAP with people of its own, and the federation by which a realm reads it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::keycloak::Realm;
use crate::{children, clock, free_port};

/// Where the people are.
const PEOPLE: &str = "ou=people,dc=example,dc=test";
/// Who may do everything, and how it shows that.
const KEEPER: (&str, &str) = ("cn=admin,dc=example,dc=test", "the keepers password");

/// A running (or stopped) directory; it ends with this value.
#[derive(Debug)]
pub struct Directory {
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Directory {
    /// A directory in which each of `people` has the password `password` and the address `NAME@example.com`.
    pub fn start(people: &[&str], password: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("reentry-directory-")
            .tempdir()
            .expect("a folder");
        let mut directory = Self {
            port: free_port(),
            folder,
            child: None,
        };
        directory.fill(people, password);
        directory.resume();
        directory
    }

    /// The URL of the directory.
    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// Ends the server; what is in it stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("slapd ends");
            child.wait().expect("slapd ended");
        }
    }

    /// Starts the server again and waits until it takes connections.
    pub fn resume(&mut self) {
        let mut slapd = children::tied(program("slapd"));
        slapd
            .args(["-d", "0", "-h", &self.url(), "-f"])
            .arg(self.configuration());
        slapd
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(children::spawn(slapd).expect("slapd: run scripts/install"));
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "slapd does not start");
            clock::pause(Duration::from_millis(50));
        }
    }

    /// Removes somebody's entry.
    pub fn remove(&self, name: &str) {
        self.modify(&format!("dn: uid={name},{PEOPLE}\nchangetype: delete\n"));
    }

    /// Gives somebody another address, behind everybody's back.
    pub fn set_mail(&self, name: &str, address: &str) {
        self.modify(&format!(
            "dn: uid={name},{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: {address}\n"
        ));
    }

    /// Lets `realm` read it in this edit mode (`READ_ONLY`, `WRITABLE` or `UNSYNCED`). Gives the component's id.
    pub async fn federate(&self, realm: &Realm, mode: &str) -> String {
        let component = self.component(&realm.get("").await["id"], mode);
        realm.post("components", &component).await
    }

    fn component(&self, realm: &Value, mode: &str) -> Value {
        json!({
            "name": format!("directory-{}", mode.to_lowercase()), "parentId": realm, "providerId": "ldap",
            "providerType": "org.keycloak.storage.UserStorageProvider",
            "config": {
                "enabled": ["true"], "priority": ["0"], "editMode": [mode], "importEnabled": ["true"],
                "syncRegistrations": ["false"], "vendor": ["other"], "cachePolicy": ["NO_CACHE"],
                "usernameLDAPAttribute": ["uid"], "rdnLDAPAttribute": ["uid"], "uuidLDAPAttribute": ["entryUUID"],
                "userObjectClasses": ["inetOrgPerson, organizationalPerson"], "searchScope": ["1"],
                "connectionUrl": [self.url()], "usersDn": [PEOPLE], "pagination": ["true"], "trustEmail": ["true"],
                "authType": ["simple"], "bindDn": [KEEPER.0], "bindCredential": [KEEPER.1],
                "connectionTimeout": ["2000"], "readTimeout": ["2000"],
            },
        })
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("slapd.conf")
    }

    fn fill(&self, people: &[&str], password: &str) {
        let data = self.folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder for the data");
        let configuration = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             database mdb\nmaxsize 16777216\nsuffix \"dc=example,dc=test\"\nrootdn \"{}\"\nrootpw \"{}\"\n\
             directory \"{}\"\n",
            KEEPER.0,
            KEEPER.1,
            data.display()
        );
        std::fs::write(self.configuration(), configuration).expect("slapd.conf");
        let mut entries = format!(
            "dn: dc=example,dc=test\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n\
             dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n"
        );
        for name in people {
            // Writing to a String cannot fail.
            let _ = write!(
                entries,
                "dn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\ngivenName: {name}\n\
                 sn: Tester\nmail: {name}@example.com\nuserPassword: {password}\n\n"
            );
        }
        let mut add = Command::new(program("slapadd"));
        add.arg("-q").arg("-f").arg(self.configuration());
        feed(add, &entries);
    }

    fn modify(&self, change: &str) {
        let mut modify = Command::new("ldapmodify");
        modify.args(["-x", "-H", &self.url(), "-D", KEEPER.0, "-w", KEEPER.1]);
        feed(modify, change);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that Debian keeps where only administrators look.
fn program(name: &str) -> PathBuf {
    PathBuf::from("/usr/sbin").join(name)
}

fn feed(mut command: Command, text: &str) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("OpenLDAP's tools: run scripts/install");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(text.as_bytes()).expect("its input is read");
    drop(input);
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
