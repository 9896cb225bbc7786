//! What is asked of the catalogue, in the guest and again on the host.

/// A question with an answer that does not depend on who computes it: every order is total, every number
/// whole.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// For the reader.
    pub title: &'static str,
    /// One statement.
    pub sql: &'static str,
}

/// All of them.
pub const QUESTIONS: &[Question] = &[
    Question {
        title: "How much is there? (packages, dependencies, maintainers, sections)",
        sql: "SELECT (SELECT count(*) FROM package), (SELECT count(*) FROM dependency), \
              (SELECT count(*) FROM maintainer), (SELECT count(*) FROM section)",
    },
    Question {
        title: "Most depended upon (package, by how many)",
        sql: "SELECT target, count(DISTINCT package_id) AS dependents FROM dependency \
              WHERE kind IN ('depends', 'pre-depends') \
              GROUP BY target ORDER BY dependents DESC, target LIMIT 8",
    },
    Question {
        title: "Size by section (section, packages, MiB to download)",
        sql: "SELECT section.name, count(*) AS packages, sum(download_bytes) / 1048576 AS mib \
              FROM package JOIN section ON section.id = section_id \
              GROUP BY section.id, section.name ORDER BY sum(download_bytes) DESC, section.name LIMIT 8",
    },
    Question {
        title: "Maintainers with the most packages (maintainer, packages)",
        sql: "SELECT maintainer.name, count(*) AS packages \
              FROM package JOIN maintainer ON maintainer.id = maintainer_id \
              GROUP BY maintainer.id, maintainer.name ORDER BY packages DESC, maintainer.name LIMIT 8",
    },
    Question {
        title: "Wanted most of what no package is named (name, by how many)",
        sql: "SELECT target, count(DISTINCT package_id) AS dependents FROM dependency \
              WHERE kind = 'depends' AND NOT EXISTS (SELECT 1 FROM package WHERE name = target) \
              GROUP BY target ORDER BY dependents DESC, target LIMIT 8",
    },
    Question {
        title: "What installing the package with the most dependencies brings in (package, packages, MiB on disk)",
        sql: "WITH RECURSIVE greedy(id) AS ( \
                SELECT package_id FROM dependency WHERE kind = 'depends' AND alternative = 1 \
                GROUP BY package_id ORDER BY count(*) DESC, package_id LIMIT 1), \
              needed(id) AS ( \
                SELECT id FROM greedy UNION \
                SELECT package.id FROM needed JOIN dependency ON package_id = needed.id \
                JOIN package ON package.name = target \
                WHERE kind IN ('depends', 'pre-depends') AND alternative = 1) \
              SELECT (SELECT name FROM package JOIN greedy ON greedy.id = package.id), count(*), \
              sum(installed_kib) / 1024 FROM package WHERE id IN (SELECT id FROM needed)",
    },
    Question {
        title: "The longest chain of dependencies from there that has no short cut (step, package)",
        // A package may be reached over and over on cycles: depth is bounded, and the least one counts.
        sql: "WITH RECURSIVE greedy(id) AS ( \
                SELECT package_id FROM dependency WHERE kind = 'depends' AND alternative = 1 \
                GROUP BY package_id ORDER BY count(*) DESC, package_id LIMIT 1), \
              reached(id, depth) AS ( \
                SELECT id, 0 FROM greedy UNION \
                SELECT package.id, depth + 1 FROM reached JOIN dependency ON package_id = reached.id \
                JOIN package ON package.name = target \
                WHERE kind IN ('depends', 'pre-depends') AND alternative = 1 AND depth < 25), \
              nearest(id, depth) AS MATERIALIZED (SELECT id, min(depth) FROM reached GROUP BY id), \
              chain(id, depth) AS ( \
                SELECT * FROM (SELECT id, depth FROM nearest ORDER BY depth DESC, id LIMIT 1) UNION ALL \
                SELECT (SELECT min(nearest.id) FROM package \
                  JOIN dependency ON target = package.name \
                  JOIN nearest ON nearest.id = package_id AND nearest.depth = chain.depth - 1 \
                  WHERE package.id = chain.id AND kind IN ('depends', 'pre-depends') AND alternative = 1), \
                  depth - 1 FROM chain WHERE depth > 0) \
              SELECT depth, name FROM chain JOIN package ON package.id = chain.id ORDER BY depth",
    },
];

/// Asks for one package.
#[must_use]
pub fn lookup(name: &str) -> String {
    format!(
        "SELECT name, version, download_bytes, (SELECT count(*) FROM dependency WHERE package_id = package.id) \
         FROM package WHERE name = '{}' ORDER BY id",
        name.replace('\'', "''")
    )
}
