//! The catalog made again from the storages alone, as after the loss of the host.

use super::*;

/// What a backup is, without what only the catalog of this host knew: its proofs, its
/// verification, and when its copies were looked at.
fn lasting(backup: &Value) -> Value {
    let mut backup = backup.clone();
    for key in ["proofs", "proven_at", "verification"] {
        backup[key] = Value::Null;
    }
    for copy in backup["copies"].as_array_mut().into_iter().flatten() {
        copy["checked_at"] = Value::Null;
    }
    backup
}

fn all(site: &Site<'_>) -> Vec<Value> {
    site.run(&["list"]).ok()["backups"].as_array().unwrap().iter().map(lasting).collect()
}

fn shown(site: &Site<'_>, id: &str) -> Value {
    lasting(&site.run(&["show", id]).ok()["backup"])
}

/// The state directory as after the loss of the host.
fn lose_the_catalog(lab: &Lab) {
    lab.run("find state -mindepth 1 -delete");
}

#[test]
fn what_the_storages_hold_is_known_again_as_it_was() {
    let lab = lab();
    let server = mariadb(&lab);
    let orders = format!(
        "[database.orders]\nengine = \"pgbackrest\"\nstanza = \"lab\"\nconnection = \"host={0}/sock user=postgres \
         dbname=postgres\"\npgbackrest = {{ config = \"{0}/pgbackrest.conf\" }}\n",
        lab.dir().display()
    );
    let keyed = "encryption = \"phrase\"\nretention = { full = 1 }";
    let site = site(
        &lab,
        &format!(
            "{}{}{}{orders}",
            portal(&lab, keyed),
            wiki(&lab, ""),
            stock(&lab, &server, "dump = { format = \"plain\" }")
        ),
    );
    site.run(&["backup", "orders", "--type", "full", "--label", "physical"]).ok();
    let old = backup(&site, "portal", &["--label", "old", "--reason", "why", "--tag", "x", "--retention", "40"]);
    let held = backup(&site, "portal", &["--label", "held"]);
    let doomed = backup(&site, "portal", &[]);
    let newest = backup(&site, "portal", &[]);
    let wiki = backup(&site, "wiki", &[]);
    backup(&site, "stock", &["--label", "stock"]);
    site.run(&["hold", &held, "--reason", "audit"]).ok();
    let (before, page) = (all(&site), shown(&site, &old));
    assert_eq!(before.len(), 7);
    assert_eq!(page["migrations"]["framework"], "prisma");

    lose_the_catalog(&lab);
    // What others put there.
    lab.run("mkdir -p local/portal/backup-20200101-000000 local/theirs; touch local/portal/backup-20200101-000000/x local/README");
    lab.run(&format!("rm -r offsite/wiki/{wiki}"));
    let strangers = files(&lab, "local");
    let rebuilt = site.run(&["catalog", "rebuild"]);
    assert_eq!((&rebuilt.ok()["dumps"], &rebuilt.ok()["pgbackrest_backups"]), (&6.into(), &1.into()), "{rebuilt:?}");
    let foreign: Vec<&str> = rebuilt.ok()["not_ours"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stranger| stranger["path"].as_str().unwrap())
        .collect();
    assert_eq!(foreign, ["README", "portal/backup-20200101-000000"]);
    assert_eq!(files(&lab, "local"), strangers, "nothing is touched");

    let copies = |found: &Value| -> Vec<String> {
        found["copies"].as_array().unwrap().iter().map(|copy| copy["state"].as_str().unwrap().to_owned()).collect()
    };
    let (others, missing): (Vec<Value>, Vec<Value>) =
        all(&site).into_iter().partition(|backup| backup["id"] != wiki.as_str());
    assert_eq!(copies(&missing[0]), ["good", "missing"]);
    let kept: Vec<Value> = before.into_iter().filter(|backup| backup["id"] != wiki.as_str()).collect();
    assert_eq!(others, kept);
    assert_eq!(shown(&site, &old), page);
    assert!(shown(&site, &held)["held"].as_str().unwrap().starts_with("audit (by "));

    // Nothing is deleted before a person has looked.
    let looked = site.run(&["status"]);
    assert!(looked.ok()["notices"].to_string().contains("recovery mode"), "{looked:?}");
    site.run(&["expire", "portal", "--yes"]).fails(1);
    let refused = site.run(&["delete", &doomed, "--yes"]).fails(1);
    assert!(refused.contains("recovery mode"), "{refused}");
    STORAGES.iter().for_each(|storage| assert!(lab.path(&format!("{storage}/portal/{doomed}")).exists()));

    site.run(&["catalog", "accept"]).ok();
    assert_eq!(site.run(&["catalog", "status"]).ok()["recovery_since"], Value::Null);
    site.run(&["expire", "portal", "--yes"]).ok();
    site.run(&["verify", "portal"]).ok();
    site.run(&["test-restore", "portal"]).ok();
    // The one that is held, the newest, and the one of which a person said 40 days.
    assert_eq!(list(&site, "portal").iter().filter(|backup| backup["status"] == "good").count(), 3);
    only(&lab, "offsite/portal/..", &[&old, &held, &newest, list(&site, "stock")[0]["id"].as_str().unwrap()]);
}

#[test]
fn a_storage_that_is_away_makes_no_backup_missing_and_the_answer_less_than_done() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    let id = backup(&site, "wiki", &[]);
    lose_the_catalog(&lab);
    lab.run("mv offsite away");
    let told = site.run(&["catalog", "rebuild"]);
    assert_eq!(told.code, 8, "{told:?}");
    assert_eq!(told.json["result"]["troubles"].as_array().unwrap().len(), 1, "{told:?}");
    let states = |site: &Site<'_>| -> Vec<String> {
        let copies = list(site, "wiki")[0]["copies"].as_array().unwrap().clone();
        copies.iter().map(|copy| copy["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&site), ["good", "unknown"]);
    lab.run("mv away offsite");
    site.run(&["catalog", "rebuild"]).ok();
    assert_eq!(states(&site), ["good", "good"]);
    assert_eq!(list(&site, "wiki")[0]["id"], id.as_str());
}

#[test]
fn a_manifest_that_somebody_changed_is_told_and_not_believed() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, "encryption = \"phrase\""));
    let id = backup(&site, "wiki", &["--reason", "genuine"]);
    lose_the_catalog(&lab);
    lab.run(&format!(
        "chmod u+w offsite/wiki/{id}/manifest.json; sed -i s/genuine/forged_/ offsite/wiki/{id}/manifest.json"
    ));
    let rebuilt = site.run(&["catalog", "rebuild"]);
    assert!(rebuilt.ok()["not_ours"][0]["path"].as_str().unwrap().ends_with("manifest.json"), "{rebuilt:?}");
    let found = &list(&site, "wiki")[0];
    assert_eq!(found["reason"], "genuine");
    let states: Vec<&Value> = found["copies"].as_array().unwrap().iter().map(|copy| &copy["state"]).collect();
    assert_eq!(states[0], "good", "{found:#}");
    assert_ne!(states[1], "good", "{found:#}");
}
