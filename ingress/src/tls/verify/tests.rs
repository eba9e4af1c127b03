//! Chains made with rcgen, and one as OpenSSL's own commands make it.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use std::process::Command;

type Issuer = CertifiedIssuer<'static, KeyPair>;

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn root(params: CertificateParams) -> Issuer {
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(params: CertificateParams, by: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), by).unwrap()
}

fn der(certificate: &Issuer) -> CertificateDer<'static> {
    certificate.der().clone()
}

fn trusting(roots: &[&Issuer]) -> Authorities {
    Authorities::new(roots.iter().map(|root| der(root)).collect(), &[]).unwrap()
}

fn reason(result: Result<(), Rejection>) -> &'static str {
    result.err().map_or("SUCCESS", |rejection| rejection.reason)
}

#[test]
fn chains_up_to_the_depth() {
    let top = root(authority("top"));
    let middle = signed(authority("middle"), &top);
    let low = signed(authority("low"), &middle);
    let leaf = signed(params("leaf"), &low);
    let chain = [der(&leaf), der(&low), der(&middle)];
    let authorities = trusting(&[&top]);
    assert_eq!(reason(authorities.verify(&chain, 2, NOW)), "SUCCESS");
    assert_eq!(reason(authorities.verify(&chain, 1, NOW)), "certificate chain too long");
    let gap = authorities.verify(&[der(&leaf), der(&low)], 2, NOW);
    assert_eq!(gap, Err(unknown("unable to get local issuer certificate")));
    let direct = signed(params("direct"), &top);
    assert_eq!(reason(authorities.verify(&[der(&direct)], 1, NOW)), "SUCCESS");
}

#[test]
fn what_is_wrong_is_named_as_openssl_names_it() {
    let (ours, theirs) = (root(authority("ours")), root(authority("theirs")));
    let authorities = trusting(&[&ours]);
    let with = |change: &dyn Fn(&mut CertificateParams), by: &Issuer| {
        let mut params = params("leaf");
        change(&mut params);
        signed(params, by)
    };
    let foreign = with(&|_| {}, &theirs);
    let alone = root(params("alone"));
    for (chain, rejection) in [
        (vec![der(&foreign)], unknown("unable to verify the first certificate")),
        (
            vec![der(&foreign), der(&theirs)],
            unknown("self-signed certificate in certificate chain"),
        ),
        (vec![der(&alone)], unknown("self-signed certificate")),
        (
            vec![der(&with(&|p| p.not_after = date_time_ymd(2020, 1, 1), &ours))],
            rejected("certificate has expired"),
        ),
        (
            vec![der(&with(&|p| p.not_before = date_time_ymd(2040, 1, 1), &ours))],
            rejected("certificate is not yet valid"),
        ),
        (
            vec![der(&with(
                &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
                &ours,
            ))],
            rejected("unsuitable certificate purpose"),
        ),
    ] {
        assert_eq!(authorities.verify(&chain, 1, NOW), Err(rejection));
    }
}

#[test]
fn authorities_expire_too() {
    let mut old = authority("old");
    old.not_after = date_time_ymd(2020, 1, 1);
    let old = root(old);
    let leaf = signed(params("leaf"), &old);
    let result = trusting(&[&old]).verify(&[der(&leaf)], 1, NOW);
    assert_eq!(result, Err(rejected("certificate has expired")));
}

#[test]
fn a_trusted_certificate_may_be_the_clients_own() {
    let own = root(params("own"));
    assert_eq!(reason(trusting(&[&own]).verify(&[der(&own)], 1, NOW)), "SUCCESS");
    let authority = root(authority("ca"));
    assert_eq!(reason(trusting(&[&authority]).verify(&[der(&authority)], 1, NOW)), "SUCCESS");
}

#[test]
fn revoked_certificates_and_missing_lists() {
    let (top, other) = (root(authority("top")), root(authority("other")));
    let list = |issuer: &Issuer, serial: u64, until: i32| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(issuer).unwrap().der().to_vec()
    };
    for is_authority in [false, true] {
        let leaf = |serial: u64| {
            // Marked as an authority it takes the other way of judging.
            let mut params = if is_authority { authority("leaf") } else { params("leaf") };
            params.serial_number = Some(SerialNumber::from(serial));
            der(&signed(params, &top))
        };
        let verify = |list: Vec<u8>, serial| {
            let authorities = Authorities::new(vec![der(&top)], &[list]).unwrap();
            reason(authorities.verify(&[leaf(serial)], 1, NOW))
        };
        assert_eq!(verify(list(&top, 7, 2040), 7), "certificate revoked");
        assert_eq!(verify(list(&top, 7, 2040), 8), "SUCCESS");
        assert_eq!(verify(list(&top, 7, 2025), 8), "CRL has expired");
        assert_eq!(verify(list(&other, 7, 2040), 8), "unable to get certificate CRL");
    }
    assert!(Authorities::new(vec![der(&top)], &[b"nonsense".to_vec()]).is_err());
}

/// `openssl x509 -req` without extensions, as the documentation of ingress-nginx has it.
#[test]
fn certificates_of_version_1_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    for (ca, name) in [("ours", "/CN=ca"), ("theirs", "/CN=ca")] {
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -keyout {ca}.key -out {ca}.crt -days 9 -nodes -subj {name}"
        ));
    }
    openssl("req -new -newkey rsa:2048 -keyout client.key -out client.csr -nodes -subj /CN=client");
    for ca in ["ours", "theirs"] {
        openssl(&format!(
            "x509 -req -days 9 -in client.csr -CA {ca}.crt -CAkey {ca}.key -set_serial 2 -out {ca}-client.crt"
        ));
    }
    let read = |name: &str| {
        let pem = std::fs::read(folder.path().join(name)).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap()
    };
    let authorities = Authorities::new(vec![read("ours.crt")], &[]).unwrap();
    let (ours, theirs) = (read("ours-client.crt"), read("theirs-client.crt"));
    assert_eq!(authorities.verify(std::slice::from_ref(&ours), 1, super::now()), Ok(()));
    assert!(authorities.verify(&[theirs], 1, super::now()).is_err_and(|r| r.unknown_authority));
    let late = UnixTime::since_unix_epoch(Duration::from_secs(super::now().as_secs() + 900_000));
    assert!(authorities.verify(&[ours], 1, late).is_err());
}
