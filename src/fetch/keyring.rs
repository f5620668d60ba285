//! The OpenPGP keys of a repository.
//!
//! The `rpm` crate can verify signatures too, but it takes revoked and expired keys, skips no unreadable key
//! of a file, and knows nothing of repomd.xml.asc; so only the packets come from elsewhere (`pgp`), the
//! judgement is here. It follows RFC 9580 and, on time, rpm-sequoia: a key must have been alive when the
//! signature was made. Today's date does not matter, so that an old lockfile stays buildable.

use pgp::armor::Dearmor;
use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Packet, PacketParser, PublicKey, PublicSubkey, Signature, SignatureType, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails, KeyId, Tag};

use std::io::Read;

use anyhow::{Context, Result, bail};

/// Keys that signatures are checked against.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

/// Why a signature is not accepted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadSignature {
    #[error("the signature can't be read")]
    Unreadable,
    #[error("the signature is made with {0}, which is too weak: expected SHA-2 or SHA-3")]
    Weak(HashAlgorithm),
    #[error("signed with key {issuer}, expected one of: {known}")]
    UnknownKey { issuer: String, known: String },
    #[error("signed with key {0}, which is revoked")]
    Revoked(String),
    #[error("signed with key {0} after the key had expired")]
    Expired(String),
    #[error("signed with key {0} before the key was made")]
    Unborn(String),
    #[error("signed with key {0}, which is not meant for signing")]
    NotForSigning(String),
    #[error("the signature by key {0} is not of this content")]
    Mismatch(String),
}

/// A primary key or subkey, and what its self-signatures allow.
#[derive(Debug)]
struct Key {
    public: Public,
    revoked: bool,
    may_sign: bool,
    /// UTC seconds.
    expires: Option<u64>,
}

#[derive(Debug)]
enum Public {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

impl Keyring {
    /// Adds all keys of a key file: binary, or any number of armored blocks with text around them. Keys that
    /// can't be read or aren't self-signed are passed over, but one must be usable.
    pub fn add(&mut self, file: &[u8]) -> Result<()> {
        let before = self.keys.len();
        for block in blocks(file, "-----BEGIN PGP PUBLIC KEY BLOCK-----").context("removing the armor")? {
            let certificates = SignedPublicKey::from_bytes_many(&block[..]).context("parsing the key")?;
            for certificate in certificates.filter_map(Result::ok) {
                self.add_certificate(certificate);
            }
        }
        if self.keys.len() == before {
            bail!("it holds no usable OpenPGP public key");
        }
        Ok(())
    }

    fn add_certificate(&mut self, certificate: SignedPublicKey) {
        let SignedPublicKey { primary_key: primary, details, public_subkeys } = certificate;
        let direct = details.direct_signatures.iter().filter(|s| s.verify_key(&primary).is_ok());
        let users = details.users.iter().flat_map(|user| {
            let certifies = |s: &&Signature| {
                s.is_certification() && s.verify_certification(&primary, Tag::UserId, &user.id).is_ok()
            };
            user.signatures.iter().filter(certifies)
        });
        let Some(newest) = direct.chain(users).max_by_key(|s| s.created()) else { return };
        let revoked = details.revocation_signatures.iter().any(|s| s.verify_key(&primary).is_ok());
        let subkeys = public_subkeys.into_iter().filter_map(|subkey| Key::bound(subkey, &primary, revoked));
        self.keys.extend(subkeys);
        self.keys.push(Key {
            may_sign: may_sign(newest),
            expires: expiry(&primary, newest),
            revoked,
            public: Public::Primary(primary),
        });
    }

    /// Checks that one of the signatures in `signature`, binary or armored, is made by one of the keys over
    /// exactly `data`, of which every key that may have made it reads a copy.
    pub fn verify(&self, data: impl Read + Clone, signature: &[u8]) -> Result<(), BadSignature> {
        let blocks =
            blocks(signature, "-----BEGIN PGP SIGNATURE-----").map_err(|_| BadSignature::Unreadable)?;
        let mut failure = BadSignature::Unreadable;
        for packet in blocks.iter().flat_map(|block| PacketParser::new(&block[..])) {
            if let Ok(Packet::Signature(signature)) = packet {
                match self.verify_one(data.clone(), &signature) {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }

    fn verify_one(&self, data: impl Read + Clone, signature: &Signature) -> Result<(), BadSignature> {
        let (Some(SignatureType::Binary | SignatureType::Text), Some(hash), Some(created)) =
            (signature.typ(), signature.hash_alg(), signature.created())
        else {
            return Err(BadSignature::Unreadable);
        };
        if matches!(
            hash,
            HashAlgorithm::None | HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160
        ) {
            return Err(BadSignature::Weak(hash));
        }
        let mut failure = BadSignature::UnknownKey { issuer: issuer(signature), known: self.to_string() };
        for key in self.keys.iter().filter(|key| key.is_named_by(signature)) {
            match key.verify(data.clone(), signature, u64::from(created.as_secs())) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl std::fmt::Display for Keyring {
    /// The fingerprints, or `no key at all`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.keys.iter().filter(|k| k.may_sign).map(Key::name).collect();
        f.write_str(if names.is_empty() { "no key at all" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

impl Key {
    /// A subkey by its newest valid binding; none if it was never bound to `primary`.
    fn bound(subkey: SignedPublicSubKey, primary: &PublicKey, primary_revoked: bool) -> Option<Self> {
        let SignedPublicSubKey { key, signatures } = subkey;
        let of_type = |wanted| {
            let (key, signatures) = (&key, &signatures);
            signatures
                .iter()
                .filter(move |s| s.typ() == Some(wanted) && s.verify_subkey_binding(primary, key).is_ok())
        };
        let binding = of_type(SignatureType::SubkeyBinding).max_by_key(|s| s.created())?;
        // a signing subkey must have agreed to be one (RFC 9580, 5.2.1.9)
        let agreed =
            binding.embedded_signature().is_some_and(|s| s.verify_primary_key_binding(&key, primary).is_ok());
        Some(Self {
            may_sign: may_sign(binding) && agreed,
            expires: expiry(&key, binding),
            revoked: primary_revoked || of_type(SignatureType::SubkeyRevocation).next().is_some(),
            public: Public::Subkey(key),
        })
    }

    fn details(&self) -> &dyn KeyDetails {
        match &self.public {
            Public::Primary(key) => key,
            Public::Subkey(key) => key,
        }
    }

    fn name(&self) -> String {
        self.details().fingerprint().to_string()
    }

    /// Whether the signature says it is by this key, or does not say whose it is.
    fn is_named_by(&self, signature: &Signature) -> bool {
        let (fingerprint, id): (Fingerprint, KeyId) =
            (self.details().fingerprint(), self.details().legacy_key_id());
        let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
        (fingerprints.is_empty() && ids.is_empty())
            || fingerprints.contains(&&fingerprint)
            || ids.contains(&&id)
    }

    fn verify(&self, data: impl Read, signature: &Signature, made: u64) -> Result<(), BadSignature> {
        let born = u64::from(self.details().created_at().as_secs());
        if self.revoked {
            return Err(BadSignature::Revoked(self.name()));
        }
        if !self.may_sign {
            return Err(BadSignature::NotForSigning(self.name()));
        }
        if made < born {
            return Err(BadSignature::Unborn(self.name()));
        }
        if self.expires.is_some_and(|end| made >= end) {
            return Err(BadSignature::Expired(self.name()));
        }
        match &self.public {
            Public::Primary(key) => signature.verify(key, data),
            Public::Subkey(key) => signature.verify(key, data),
        }
        .map_err(|_| BadSignature::Mismatch(self.name()))
    }
}

/// Whether a self-signature allows signing; one without key flags allows everything.
fn may_sign(signature: &Signature) -> bool {
    let has_flags = signature
        .config()
        .is_some_and(|c| c.hashed_subpackets().any(|p| matches!(p.data, SubpacketData::KeyFlags(_))));
    !has_flags || signature.key_flags().sign()
}

/// When a key ends by a self-signature, UTC seconds.
fn expiry(key: &impl KeyDetails, signature: &Signature) -> Option<u64> {
    let seconds = signature.key_expiration_time().map(|d| d.as_secs()).filter(|s| *s != 0)?;
    Some(u64::from(key.created_at().as_secs()) + u64::from(seconds))
}

/// Who made the signature, as it says itself.
fn issuer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint().into_iter().map(|f| f.to_string());
    let ids = signature.issuer_key_id().into_iter().map(|id| id.to_string());
    fingerprints.chain(ids).next().unwrap_or_else(|| "that it does not name".to_owned())
}

/// The packets of each armored block that begins with `begin`, or the bytes themselves if there is none.
fn blocks(bytes: &[u8], begin: &str) -> Result<Vec<Vec<u8>>> {
    let starts: Vec<usize> = bytes
        .windows(begin.len())
        .enumerate()
        .filter(|(_, w)| *w == begin.as_bytes())
        .map(|(i, _)| i)
        .collect();
    if starts.is_empty() {
        return Ok(vec![bytes.to_vec()]);
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let decode = |(start, end): (&usize, usize)| {
        let mut packets = Vec::new();
        Dearmor::new(&bytes[*start..end]).read_to_end(&mut packets)?;
        Ok(packets)
    };
    starts.iter().zip(ends).map(decode).collect()
}
